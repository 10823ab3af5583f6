//! Every instruction set gives what the portable kernels give, on random networks. No other engine
//! takes part, so that this also runs where candle does not: under an emulator, or instrumented
//! (`make check-unsafe`).

use peregrine_engine::cpu::{CpuEngine, Isa};
use peregrine_reference::graphs::any_graph;
use peregrine_reference::random::{cases, outputs, random_input, random_weights, relative_error};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(150),
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn vectors_agree_with_plain_rust(graph in any_graph(), threads in 1usize..3, seed: u64) {
        let (weights, input) = (random_weights(&graph, seed), random_input(&graph, seed));
        let run = |isa| outputs(&graph, &mut CpuEngine::with_isa(&graph, &weights, threads, isa).unwrap(), &input);
        let expected = run(Isa::Portable);
        for isa in Isa::available() {
            let error = relative_error(&expected, &run(isa));
            prop_assert!(error < 1e-4, "{isa:?}, {threads} threads: {error}");
        }
    }
}
