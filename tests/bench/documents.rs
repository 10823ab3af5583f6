//! The command lines of `latency_bench` in the documents.

use clap::Parser;
use peregrine_bench::command::arguments::Arguments;
use peregrine_support::documents::documents;

#[test]
fn every_command_line_in_the_documents_is_understood() {
    let mut found = 0;
    for document in documents() {
        for line in document.lines_of("latency_bench") {
            if let Err(e) = Arguments::try_parse_from(&line) {
                panic!("{}: {line:?}\n{e}", document.path);
            }
            found += 1;
        }
    }
    assert!(found >= 15, "{found}");
}
