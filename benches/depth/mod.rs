//! How deep in a tasklet's calls it makes way: in its body itself, or below calls as in all real code.
//!
//! It matters because corosensei pairs `call` and `ret` across a switch: each frame in between may cost the
//! processor's return-address predictor a miss.

/// Where a call that makes way is made.
pub(crate) trait Depth: 'static {
    /// For the names of rows.
    const NAME: &str;

    /// Calls `operation` there.
    fn call<R>(operation: impl FnOnce() -> R) -> R;
}

/// In the caller's own frame, as far as the compiler inlines `operation`.
pub(crate) struct Inlined;

/// Below three calls that are never inlined.
pub(crate) struct ThreeCalls;

impl Depth for Inlined {
    const NAME: &str = "inlined";

    #[inline(always)]
    fn call<R>(operation: impl FnOnce() -> R) -> R {
        operation()
    }
}

impl Depth for ThreeCalls {
    const NAME: &str = "below-three-calls";

    #[inline(always)]
    fn call<R>(operation: impl FnOnce() -> R) -> R {
        first(operation)
    }
}

// After the call, so that it cannot become a jump that leaves no frame.
macro_rules! then_something {
    ($call:expr) => {{
        let result = $call;
        std::hint::black_box(());
        result
    }};
}

#[inline(never)]
fn first<R>(operation: impl FnOnce() -> R) -> R {
    then_something!(second(operation))
}

#[inline(never)]
fn second<R>(operation: impl FnOnce() -> R) -> R {
    then_something!(third(operation))
}

#[inline(never)]
fn third<R>(operation: impl FnOnce() -> R) -> R {
    then_something!(operation())
}
