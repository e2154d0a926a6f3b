//! User names and passwords, redirects, TLS.

use ocelli_testkit::camera::{Access, Certificate, Script};

use super::{Case, plays, says};

const MD5: &str = "Digest realm=\"cam\", nonce=\"{nonce}\"";
const MD5_QOP: &str = "Digest realm=\"cam\", nonce=\"{nonce}\", qop=\"auth\"";
const SHA256: &str = "Digest realm=\"cam\", nonce=\"{nonce}\", algorithm=SHA-256";
const SHA256_QOP: &str = "Digest realm=\"cam\", nonce=\"{nonce}\", algorithm=SHA-256, qop=\"auth\"";
const SHA512: &str = "Digest realm=\"cam\", nonce=\"{nonce}\", algorithm=SHA-512-256";
const BASIC: &str = "Basic realm=\"cam\"";

fn asks(challenges: &[&str]) -> Script {
    Script::default().access(Access::asking(challenges))
}

pub(super) fn passwords() -> Vec<Case> {
    vec![
        plays("md5", "Digest with MD5", asks(&[MD5])),
        plays("md5-qop", "Digest with MD5 and `qop`", asks(&[MD5_QOP])),
        plays("sha-256", "Digest with SHA-256", asks(&[SHA256])),
        plays("sha-256-qop", "Digest with SHA-256 and `qop`", asks(&[SHA256_QOP])),
        plays("sha-256-and-md5", "SHA-256 and MD5", asks(&[SHA256, MD5])),
        plays("md5-and-sha-256", "MD5 and SHA-256", asks(&[MD5, SHA256])),
        plays("unknown-first", "an unknown algorithm before MD5", asks(&[SHA512, MD5])),
        plays("scheme-first", "an unknown scheme before Digest", asks(&["Bearer x=\"y\"", MD5])),
        plays("basic", "Basic", asks(&[BASIC])),
        plays("basic-and-digest", "Basic before Digest", asks(&[BASIC, MD5])),
        plays("digest-and-basic", "Digest before Basic", asks(&[MD5, BASIC])),
        plays(
            "one-line",
            "two challenges in one header",
            asks(&["Digest realm=\"cam\", nonce=\"{nonce}\", Basic realm=\"cam\""]),
        ),
        plays(
            "nonce-once",
            "each nonce is good once; `stale` says so",
            Script::default().access(Access::asking(&[MD5]).one_use(true)),
        ),
        says(
            "nonce-once-sha-256",
            "each nonce is good once, with SHA-256",
            Script::default().access(Access::asking(&[SHA256_QOP]).one_use(true)),
            "password",
        ),
        plays(
            "nonce-old-at-keepalive",
            "a nonce is too old at the keepalive",
            Script::default()
                .timeout(4, false)
                .access(Access::asking(&[MD5]).one_use(true).at(&["DESCRIBE", "GET_PARAMETER"])),
        )
        .pictures(80),
        plays(
            "setup-alone",
            "the password is asked for at SETUP",
            Script::default().access(Access::asking(&[MD5]).at(&["SETUP", "PLAY"])),
        ),
        plays(
            "describe-alone",
            "the password is asked for at DESCRIBE alone",
            Script::default().access(Access::asking(&[MD5]).at(&["DESCRIBE"])),
        ),
        plays(
            "odd-realm",
            "a realm with blanks, a comma and a colon",
            asks(&["Digest realm=\"IP Camera(C4:5A), main\", nonce=\"{nonce}\", opaque=\"\""]),
        ),
        plays("realm-empty", "an empty realm", asks(&["Digest realm=\"\", nonce=\"{nonce}\""])),
        plays(
            "unquoted",
            "parameters without quotes",
            asks(&["Digest realm=\"cam\", nonce={nonce}, stale=FALSE, algorithm=MD5"]),
        ),
        plays(
            "quoted",
            "all parameters in quotes",
            asks(&["Digest realm=\"cam\",nonce=\"{nonce}\",stale=\"FALSE\",algorithm=\"MD5\""]),
        ),
        plays(
            "lower-case-scheme",
            "`digest` in lower case",
            asks(&["digest realm=\"cam\", nonce=\"{nonce}\""]),
        ),
        plays(
            "lower-case-header",
            "`www-authenticate` in lower case",
            asks(&[MD5]).answers(|_, a| a.rename(str::to_lowercase)),
        ),
        plays(
            "md5-sess",
            "Digest with MD5-sess",
            asks(&["Digest realm=\"cam\", nonce=\"{nonce}\", algorithm=MD5-sess, qop=\"auth\""]),
        ),
        says("wrong-password", "a wrong password", asks(&[MD5]), "password")
            .credentials("admin:wr0ng@"),
        says("no-password", "no password", asks(&[MD5]), "password").credentials(""),
        says(
            "nonce-once-unsaid",
            "each nonce is good once, and nothing says so",
            Script::default().access(Access::asking(&[MD5]).one_use(false)),
            "password",
        ),
    ]
}

pub(super) fn redirects() -> Vec<Case> {
    /// A camera that answers DESCRIBE at its first port with this status and the URL of its second.
    fn moved(status: &'static str) -> Script {
        Script::default().answer("DESCRIBE", move |request, a| {
            if request.door == 0 {
                a.refuse(status);
                a.add("Location", &request.place.url(1));
            }
        })
    }
    let certificate = Certificate::new();
    let tls = || Script::default().tls(&certificate);
    let pin = format!("certificate_sha256 = \"{}\"", certificate.sha256());
    let other = format!("certificate_sha256 = \"{}\"", Certificate::new().sha256());
    vec![
        plays("moved", "302 to another port", moved("302 Moved Temporarily")),
        plays("moved-for-good", "301 to another port", moved("301 Moved Permanently")),
        plays(
            "moved-path",
            "302 to another path of the same port",
            Script::default().answer("DESCRIBE", |request, a| {
                if !request.url.ends_with("/moved") {
                    a.refuse("302 Moved Temporarily");
                    a.add("Location", &(request.base() + "moved"));
                }
            }),
        ),
        plays(
            "moved-with-password",
            "302, and then a password",
            moved("302 Moved Temporarily").access(Access::asking(&[MD5])),
        ),
        says(
            "moved-for-ever",
            "302 to itself without end",
            Script::default().answer("DESCRIBE", |request, a| {
                a.refuse("302 Moved Temporarily");
                a.add("Location", &request.place.url(0));
            }),
            "DESCRIBE",
        ),
        says(
            "moved-nowhere",
            "302 without a `Location`",
            Script::default().answer("DESCRIBE", |_, a| a.refuse("302 Moved Temporarily")),
            "302",
        ),
        plays("tls-pinned", "TLS with a certificate of its own, pinned", tls()).keys(&pin),
        plays("tls-ca", "TLS with a certificate of its own as `ca`", tls())
            .file("ca", certificate.pem()),
        says("tls-unknown", "TLS with a certificate that no one vouches for", tls(), "certificate"),
        says("tls-other", "TLS with another certificate than the pinned one", tls(), "certificate")
            .keys(&other),
    ]
}
