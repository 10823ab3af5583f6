#!/usr/bin/env python3
"""What distillation is worth to a language model for commands: a teacher, and students on labels alone and distilled.

    measure_replies.py DISTILL FOLDER [SEEDS]

DISTILL is the program; FOLDER gets the models, and what is in it is not trained again. Prints a table with mean and
standard deviation over the seeds (3).
"""
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "replies.toml"
TRAINING = "--steps 500 --learning-rate 0.006".split()
TEACHER = "--vocabulary 768 --width 64 --layers 2".split()
STUDENT = "--width 32 --layers 1".split()


def main():
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    distill, folder = sys.argv[1], Path(sys.argv[2])
    seeds = range(1, 1 + int(sys.argv[3] if len(sys.argv) > 3 else 3))
    folder.mkdir(parents=True, exist_ok=True)

    def text(*words):
        subprocess.run([distill, "text", *map(str, words)], check=True)

    def figures(name, *training):
        model, file = folder / name, folder / f"{name}.json"
        if not file.exists():
            text(*training, *TRAINING, CORPUS, "--out", model)
            text("evaluate", CORPUS, "--model", model, "--json", file)
        return json.loads(file.read_text())

    def row(label, all_figures):
        def cell(name, digits):
            values = [f[name] for f in all_figures]
            spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
            return f"{mean(values):.{digits}f}{spread}"
        columns = [cell("exact_match_greedy", 3), cell("exact_match_beam", 3), cell("perplexity", 3),
                   f"{all_figures[0]['parameters']:,}", cell("milliseconds_a_token", 2)]
        print("| " + " | ".join([label, *columns]) + " |")

    teacher = figures("teacher", "teacher", *TEACHER)
    commands = folder / "commands.txt"
    if not commands.exists():
        made = subprocess.run([sys.executable, "-B", HERE / "make_replies.py", "--unlabelled"], check=True,
                              capture_output=True).stdout
        commands.write_bytes(made)
    soft = folder / "soft"
    if not (soft / "index.json").exists():
        text("soften", CORPUS, "--teacher", folder / "teacher", "--unlabelled", commands, "--out", soft)
    tokenizer = folder / "teacher/tokenizer.json"

    def students(name, *flags):
        return [figures(f"{name}-{seed}", "student", *STUDENT, *flags, "--seed", seed) for seed in seeds]

    alone, distilled = students("alone", "--tokenizer", tokenizer), students("distilled", "--soft", soft)
    print("| | exact match, greedy | 4 beams | perplexity | parameters | ms a token |")
    print("|---|---|---|---|---|---|")
    row("teacher", [teacher])
    row("student, labels alone", alone)
    row("student, distilled", distilled)


if __name__ == "__main__":
    main()
