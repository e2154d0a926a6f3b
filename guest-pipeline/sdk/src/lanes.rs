//! Four numbers at a time: the one abstraction behind the scans over model outputs.
//!
//! Algorithms are written once over [`Lanes`]. In a component they run on `v128`; natively on
//! an array, with exactly the operations' meaning in WebAssembly, so that a native test of an
//! algorithm holds for the component too.

/// Four `f32` with the meaning of WebAssembly's SIMD instructions.
pub(crate) trait Lanes: Copy {
    /// The same number in all lanes.
    fn splat(value: f32) -> Self;

    /// Four numbers from memory.
    fn load(from: &[f32; 4]) -> Self;

    /// Four numbers to memory.
    fn store(self, to: &mut [f32; 4]);

    /// `f32x4.pmax`: per lane, `other` where `self < other`, else `self`. So a NaN in `other` is
    /// passed over and a `self` that is a number stays one.
    fn pmax(self, other: Self) -> Self;

    /// Whether any lane is at least `threshold`; a NaN is not.
    fn any_at_least(self, threshold: f32) -> bool;
}

impl Lanes for [f32; 4] {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; 4]
    }

    #[inline(always)]
    fn load(from: &[f32; 4]) -> Self {
        *from
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 4]) {
        *to = self;
    }

    #[inline(always)]
    fn pmax(self, other: Self) -> Self {
        let [a, b, c, d] = self;
        let [e, f, g, h] = other;
        let pmax = |x: f32, y: f32| if x < y { y } else { x };
        [pmax(a, e), pmax(b, f), pmax(c, g), pmax(d, h)]
    }

    #[inline(always)]
    fn any_at_least(self, threshold: f32) -> bool {
        self.iter().any(|&lane| lane >= threshold)
    }
}

/// The lanes of this build.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) type Native = [f32; 4];
/// The lanes of this build.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) type Native = core::arch::wasm32::v128;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Lanes for core::arch::wasm32::v128 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        core::arch::wasm32::f32x4_splat(value)
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn load(from: &[f32; 4]) -> Self {
        // SAFETY: `from` points at 16 readable bytes, and v128.load takes any alignment.
        unsafe { core::arch::wasm32::v128_load(from.as_ptr().cast()) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn store(self, to: &mut [f32; 4]) {
        // SAFETY: `to` points at 16 writable bytes, and v128.store takes any alignment.
        unsafe { core::arch::wasm32::v128_store(to.as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    fn pmax(self, other: Self) -> Self {
        core::arch::wasm32::f32x4_pmax(self, other)
    }

    #[inline(always)]
    fn any_at_least(self, threshold: f32) -> bool {
        core::arch::wasm32::v128_any_true(core::arch::wasm32::f32x4_ge(
            self,
            core::arch::wasm32::f32x4_splat(threshold),
        ))
    }
}

/// Whether any number of `row` is at least `threshold`; NaN never is.
#[inline(always)]
pub(crate) fn any_at_least<L: Lanes>(row: &[f32], threshold: f32) -> bool {
    // Four independent maxima, so that one pmax need not wait for the one before it.
    let lowest = L::splat(f32::NEG_INFINITY);
    let (mut a, mut b, mut c, mut d) = (lowest, lowest, lowest, lowest);
    let (quads, tail) = row.as_chunks::<4>();
    let (blocks, rest) = quads.as_chunks::<4>();
    for [p, q, r, s] in blocks {
        a = a.pmax(L::load(p));
        b = b.pmax(L::load(q));
        c = c.pmax(L::load(r));
        d = d.pmax(L::load(s));
    }
    for quad in rest {
        a = a.pmax(L::load(quad));
    }
    a.pmax(b).pmax(c.pmax(d)).any_at_least(threshold)
        || tail.iter().any(|&value| value >= threshold)
}

/// Raises each number of `largest` to that of `row` at its place, where that is larger; NaN never
/// is.
#[inline(always)]
pub(crate) fn raise<L: Lanes>(largest: &mut [f32], row: &[f32]) {
    let (quads, tail) = largest.as_chunks_mut::<4>();
    let (other_quads, other_tail) = row.as_chunks::<4>();
    for (quad, other) in quads.iter_mut().zip(other_quads) {
        L::load(quad).pmax(L::load(other)).store(quad);
    }
    for (value, other) in tail.iter_mut().zip(other_tail) {
        if *value < *other {
            *value = *other;
        }
    }
}
