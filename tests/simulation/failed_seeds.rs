//! Seeds that once broke a rule, by a fault of a brain or of the simulator itself. Every run of the tests plays them again.

/// In the order in which they were found. A seed that fails goes in here with its fix.
pub(crate) const FAILED: [u64; 18] =
    [23, 26, 72, 79, 170, 198, 280, 293, 1123, 1140, 1158, 2168, 2170, 3044, 10086, 30009, 30252, 938_918_627];
