//! The example finds what is in a photograph.

#[allow(dead_code, reason = "its main")]
#[path = "../examples/run_package.rs"]
mod run_package;

#[test]
fn the_example_finds_cars_on_a_highway() {
    let models = peregrine_support::root().join("models");
    let found = run_package::find(&models.join("peregrine-s"), &models.join("frames/highway-00.jpg")).unwrap();
    assert!(found.iter().any(|object| object.starts_with("car ")), "{found:?}");
}
