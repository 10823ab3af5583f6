//! `distill text`: teacher, soft targets, student and evaluation for sentences.

use std::path::Path;

use super::args::{TextArgs, TextCommand};
use super::causal::package::MANIFEST;
use super::causal::task::ReplyCorpus;
use super::{causal::command as replies, classify};

/// Runs the command.
///
/// # Errors
/// Each names the invalid file or flag; existing files stay intact.
pub fn run(args: &TextArgs) -> anyhow::Result<()> {
    let of_replies = |corpus: &Path| ReplyCorpus::is_at(corpus);
    match &args.command {
        TextCommand::Teacher(args) if of_replies(&args.corpus)? => replies::teacher(args),
        TextCommand::Teacher(args) => classify::teacher(args),
        TextCommand::Soften(args) if of_replies(&args.corpus)? => replies::soften(args),
        TextCommand::Soften(args) => classify::soften(args),
        TextCommand::Student(args) if of_replies(&args.corpus)? => replies::student(args),
        TextCommand::Student(args) => classify::student(args),
        TextCommand::Evaluate(args) if of_replies(&args.corpus)? => replies::evaluate(args),
        TextCommand::Evaluate(args) => classify::evaluate(args),
        TextCommand::Say(args) if args.model.join(MANIFEST).exists() => replies::say(args),
        TextCommand::Say(args) => classify::say(args),
        TextCommand::Export(args) => replies::export(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::causal::soft::VocabularySoftTargets;
    use super::super::causal::task::tests::{corpus, write};
    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: TextArgs,
    }

    /// Runs `distill text` with `line`, in which `~` is the folder.
    fn distill_text(folder: &Path, line: &str) -> Result<(), String> {
        let line = format!("text {}", line.replace('~', folder.to_str().unwrap()));
        let Cli { args } = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
        run(&args).map_err(|error| format!("{error:#}"))
    }

    const SMALL: &str = "--width 16 --layers 1 --heads 2 --steps 40 --learning-rate 0.01";

    fn figures(folder: &Path, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    }

    #[test]
    fn a_language_model_is_distilled_from_end_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        corpus(folder);
        std::fs::write(folder.join("more.txt"), "halt at the gate\nstop by the river\n").unwrap();
        let run = |line: &str| distill_text(folder, line).unwrap();
        let teacher = "--width 24 --layers 2 --heads 2 --steps 120 --learning-rate 0.01 --vocabulary 280";
        run(&format!("teacher ~/replies.toml --out ~/teacher {teacher}"));
        run("evaluate ~/replies.toml --model ~/teacher --json ~/teacher.json --beams 2");
        run("soften ~/replies.toml --teacher ~/teacher --unlabelled ~/more.txt --top-k 4 --out ~/soft");
        run(&format!("student ~/replies.toml --soft ~/soft --out ~/student --divergence reverse {SMALL}"));
        run("evaluate ~/replies.toml --model ~/student --json ~/student.json");
        let [teacher, student] = ["teacher.json", "student.json"].map(|name| figures(folder, name));
        assert!(teacher["perplexity"].as_f64().unwrap() < 3.0, "{teacher}");
        assert!(student["parameters"].as_u64() < teacher["parameters"].as_u64());
        assert_eq!(student["counts"]["replies"], 3);
        run("say --model ~/teacher --beams 2 stop at the gate");
    }

    #[test]
    fn a_teacher_in_onnx_gives_the_soft_targets_of_its_weights() {
        if super::super::causal::gpt2::tests::runtime().is_none() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        corpus(folder);
        let run = |line: &str| distill_text(folder, line).unwrap();
        run(&format!("teacher ~/replies.toml --out ~/teacher {SMALL}"));
        run("export --model ~/teacher --out ~/teacher.onnx");
        run("teacher ~/replies.toml --network ~/teacher.onnx --tokenizer ~/teacher/tokenizer.json --out ~/onnx");
        run("evaluate ~/replies.toml --model ~/teacher --json ~/ours.json --beams 3");
        run("evaluate ~/replies.toml --model ~/onnx --json ~/theirs.json --beams 3");
        let [ours, theirs] = ["ours.json", "theirs.json"].map(|name| figures(folder, name)["perplexity"].as_f64());
        assert!((ours.unwrap() - theirs.unwrap()).abs() < 1e-3, "{ours:?} {theirs:?}");
        let soft = ["teacher", "onnx"].map(|teacher| {
            run(&format!("soften ~/replies.toml --teacher ~/{teacher} --top-k 4 --out ~/soft-{teacher}"));
            VocabularySoftTargets::open(&folder.join(format!("soft-{teacher}"))).unwrap().0
        });
        assert_ne!(soft[0].index.teacher, soft[1].index.teacher);
        for (a, b) in soft[0].texts.iter().zip(&soft[1].texts) {
            assert_eq!(a.text, b.text);
            assert!(a.rest.iter().zip(&b.rest).all(|(a, b)| (a - b).abs() < 0.02));
        }
        let error = distill_text(
            folder,
            "teacher ~/replies.toml --network ~/teacher.onnx --tokenizer ~/teacher/tokenizer.json --steps 9 --out ~/x",
        );
        assert!(error.unwrap_err().starts_with("--network is trained already"));
        std::fs::write(folder.join("teacher.onnx"), "changed").unwrap();
        let error = distill_text(folder, "soften ~/replies.toml --teacher ~/onnx --out ~/y").unwrap_err();
        assert!(error.contains("teacher.onnx: it or a file that it loads has changed"), "{error}");
    }

    #[test]
    fn a_flag_of_the_other_kind_of_corpus_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        corpus(folder);
        let labels = "name='a'\nintents=['a','b']\nslots=['c']\nmax_tokens=9\ntrain='t'\nval='v'\n";
        std::fs::write(folder.join("labels.toml"), labels).unwrap();
        for (line, expected) in [
            ("teacher ~/replies.toml --out ~/o --encoder x", "--encoder does not fit"),
            ("teacher ~/labels.toml --out ~/o --network x", "--network does not fit"),
            ("teacher ~/labels.toml --out ~/o --layers 3", "--layers does not fit"),
            ("teacher ~/labels.toml --out ~/o", "a teacher of intents and slots needs --encoder"),
            ("soften ~/labels.toml --teacher ~/t --out ~/o --top-k 3", "--top-k does not fit"),
            ("student ~/labels.toml --out ~/o --divergence reverse", "--divergence does not fit"),
            ("evaluate ~/labels.toml --model ~/o --beams 3", "--beams does not fit"),
        ] {
            let error = distill_text(folder, line).unwrap_err();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_missing_or_empty_is_named_in_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        corpus(folder);
        let teacher = format!("teacher ~/replies.toml --out ~/teacher {SMALL}");
        distill_text(folder, &teacher).unwrap();
        for (line, expected) in [
            (
                "soften ~/replies.toml --teacher ~/none --out ~/o",
                "no language model here; `distill text teacher` makes one",
            ),
            ("student ~/replies.toml --soft ~/none --out ~/o", "no soft targets here, or not all yet"),
            ("student ~/replies.toml --out ~/o --heads 3", "--heads is 3; it must divide --width, which is 64"),
            ("teacher ~/replies.toml --out ~/o --vocabulary 9", "--vocabulary is 9; it must be 257 to 65536"),
            ("soften ~/replies.toml --teacher ~/teacher --out ~/o --top-k 0", "--top-k is 0; it must be 1 to"),
            ("evaluate ~/replies.toml --model ~/teacher --beams 0", "--beams is 0; it must be 1 to 64"),
        ] {
            let error = distill_text(folder, line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        // A vocabulary that is not the teacher's.
        distill_text(folder, "soften ~/replies.toml --teacher ~/teacher --out ~/soft").unwrap();
        distill_text(folder, &format!("teacher ~/replies.toml --out ~/other --vocabulary 300 {SMALL}")).unwrap();
        let line = format!("student ~/replies.toml --soft ~/soft --tokenizer ~/other/tokenizer.json --out ~/o {SMALL}");
        let error = distill_text(folder, &line).unwrap_err();
        assert!(error.contains("is not the tokenizer of the soft targets; leave out --tokenizer"), "{error}");
        write(folder, "\n", "stop\t{}\n");
        let error = distill_text(folder, &teacher).unwrap_err();
        assert!(error.ends_with("train.tsv: has no pairs of a command and its reply"), "{error}");
    }
}
