"""What Schemathesis sends as bodies that are no JSON: pictures and components, whole and broken."""

import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

PICTURE = Path(os.environ["OCELLI_PICTURE"]).read_bytes()

garbage = st.binary(max_size=512)
# A picture, one that ends too early, and what is no picture at all.
pictures = st.one_of(st.just(PICTURE), st.integers(1, len(PICTURE) - 1).map(lambda end: PICTURE[:end]), garbage)
# No whole component: what Schemathesis puts into the store would be run by nobody.
components = st.one_of(st.just(b"\0asm\x0d\0\x01\0"), garbage.map(lambda rest: b"\0asm" + rest), garbage)

schemathesis.openapi.media_type("image/jpeg", pictures)
schemathesis.openapi.media_type("image/png", pictures)
schemathesis.openapi.media_type("application/wasm", components)
