//! How long criterion measures a row, and how rows of different sizes are brought to one unit.

use std::time::Duration;

use criterion::Criterion;

/// Few and short samples, so that all benches together take minutes. The command line overrides it.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(600))
        .nresamples(5_000)
        .configure_from_args()
}

/// Has `measure` do whole rounds of `size` operations each, and gives the time of `operations` of them.
pub(crate) fn in_rounds(
    operations: u64,
    size: usize,
    measure: impl FnOnce(u64) -> Duration,
) -> Duration {
    let size = size as u64;
    let rounds = operations.div_ceil(size);
    measure(rounds).mul_f64(operations as f64 / (rounds * size) as f64)
}
