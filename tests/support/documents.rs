//! The documents of the repository: their command lines, and what else in them can be checked.
//!
//! Each program's own tests parse the lines that call it ([`Document::lines_of`]); the tests here
//! check links, paths, `make` targets and cargo's names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// Folders below which documents are looked for; those at the top of the repository come besides.
const FOLDERS: [&str; 8] = ["bench", "docs", "launch", "models", "msg", "packaging", "src", "tests"];

/// A Markdown file of the repository.
#[derive(Debug)]
pub struct Document {
    /// From the root of the repository, such as `docs/node.md`.
    pub path: String,
    pub text: String,
}

/// Every Markdown file of the repository, by path.
pub fn documents() -> Vec<Document> {
    let mut files: Vec<PathBuf> = children(root()).into_iter().filter(|path| is_markdown(path)).collect();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    let read = |file: PathBuf| Document {
        path: file.strip_prefix(root()).unwrap_or(&file).display().to_string(),
        text: fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())),
    };
    files.into_iter().map(read).collect()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn is_markdown(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "md")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in children(folder) {
        match path.is_dir() {
            true if path.file_name().is_some_and(|name| name == "target") => {}
            true => collect(&path, files),
            false if is_markdown(&path) => files.push(path),
            false => {}
        }
    }
}

impl Document {
    /// The commands in its shell blocks, one a string: continued lines are joined, and comments
    /// and here-documents left out.
    pub fn commands(&self) -> Vec<String> {
        let (mut commands, mut in_shell, mut here): (Vec<String>, bool, Option<String>) = (Vec::new(), false, None);
        for line in self.text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with("```") {
                in_shell = !in_shell && ["```sh", "```bash"].contains(&line);
            } else if in_shell && here.is_some() {
                here = here.filter(|end| end != line);
            } else if in_shell && !line.is_empty() && !line.starts_with('#') {
                let (command, rest) = line.split_once("<<").unwrap_or((line, ""));
                here = (!rest.is_empty()).then(|| rest.trim_matches('\'').to_owned());
                commands.push(without_comment(command).to_owned());
            }
        }
        commands
    }

    /// The code spans of its text, outside of blocks.
    pub fn spans(&self) -> Vec<String> {
        let mut in_block = false;
        let mut text = String::new();
        for line in self.text.lines() {
            match line.trim_start().starts_with("```") {
                true => in_block = !in_block,
                false if !in_block => text.extend([line.trim(), " "]),
                false => {}
            }
        }
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// The command lines that call `program`, split into words: those of its shell blocks, and the
    /// code spans that have more than a subcommand's name.
    pub fn lines_of(&self, program: &str) -> Vec<Vec<String>> {
        let call = format!("{program} ");
        let spans = self.spans().into_iter().filter(|span| span.contains(['/', '-', '=']));
        let all = self.commands().into_iter().chain(spans);
        let plain = all.map(|line| line.replace(&format!("target/release/{call}"), &call));
        let calls = plain.filter(|line| line.starts_with(&call));
        // What follows is the shell's.
        let own = |line: String| words(&line).into_iter().take_while(|word| ![">", "|", "&&"].contains(&word.as_str()));
        calls.map(|line| own(line).collect()).collect()
    }
}

/// The line without a comment at its end.
fn without_comment(line: &str) -> &str {
    line.find(" #").map_or(line, |at| &line[..at]).trim()
}

/// The words of a command as the shell splits it, as far as documents need: double quotes keep what
/// is between them together.
pub fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (i, part) in line.split('"').enumerate() {
        if i % 2 == 1 {
            words.last_mut().expect("never empty").push_str(part);
            continue;
        }
        for (j, piece) in part.split(char::is_whitespace).enumerate() {
            if j > 0 {
                words.push(String::new());
            }
            words.last_mut().expect("never empty").push_str(piece);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Folders whose paths, where a document names them, must exist.
    const TOP: [&str; 10] =
        [".ci/", "bench/", "docs/", "examples/", "launch/", "models/", "msg/", "packaging/", "src/", "tests/"];

    fn exists(path: &str) -> bool {
        match path.split_once('*') {
            None => root().join(path).exists(),
            Some((before, after)) => {
                let (folder, start) = before.rsplit_once('/').unwrap_or(("", before));
                let names = children(&root().join(folder))
                    .into_iter()
                    .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
                let after = after.trim_start_matches('*');
                names.into_iter().any(|name| name.starts_with(start) && name.ends_with(after))
            }
        }
    }

    /// Those parts of a word that would be paths of the repository.
    fn paths(word: &str) -> impl Iterator<Item = &str> {
        let parts = word.split(['=', ',']).map(|part| part.trim_start_matches("./"));
        let plain = parts.map(|part| part.trim_end_matches(['.', ':', ')', ';']));
        plain.filter(|part| TOP.iter().any(|top| part.starts_with(top)))
    }

    #[test]
    fn every_path_in_code_spans_and_commands_exists() {
        let mut missing = Vec::new();
        let mut found = 0;
        for document in documents() {
            for text in document.spans().into_iter().chain(document.commands()) {
                for path in words(&text).iter().flat_map(|word| paths(word)) {
                    found += 1;
                    if !exists(path) {
                        missing.push(format!("{}: {path}", document.path));
                    }
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(found > 50, "{found}");
    }

    /// A heading as GitHub makes an anchor of it.
    fn anchor(heading: &str) -> String {
        let kept = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>();
        kept.replace(' ', "-")
    }

    fn links(text: &str) -> Vec<&str> {
        text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect()
    }

    #[test]
    fn every_relative_link_leads_to_a_file_and_its_heading() {
        let mut broken = Vec::new();
        let mut found = 0;
        for document in documents() {
            let folder = Path::new(&document.path).parent().unwrap_or(Path::new(""));
            for link in links(&document.text).into_iter().filter(|link| !link.contains("://")) {
                found += 1;
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { root().join(&document.path) } else { root().join(folder).join(file) };
                let headed = || {
                    let text = fs::read_to_string(&target).unwrap_or_default();
                    text.lines().any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading)
                };
                if !target.exists() || (!heading.is_empty() && !headed()) {
                    broken.push(format!("{}: {link}", document.path));
                }
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
        assert!(found > 50, "{found}");
    }

    fn read(path: &str) -> String {
        fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    #[test]
    fn every_make_target_in_the_documents_exists() {
        let makefile = read("Makefile");
        let targets: BTreeSet<&str> =
            makefile.lines().filter_map(|line| line.split_once(':')).map(|(target, _)| target).collect();
        let mut found = 0;
        for document in documents() {
            let lines = document.commands().into_iter().chain(document.spans());
            for line in lines.filter(|line| line.starts_with("make ")) {
                let target = words(&line)[1].clone();
                assert!(targets.contains(target.as_str()), "{}: {line}", document.path);
                found += 1;
            }
        }
        assert!(found > 20, "{found}");
    }

    #[test]
    fn the_architecture_names_what_each_crate_uses() {
        let architecture = read("ARCHITECTURE.md");
        let rows = architecture.lines().filter_map(|line| line.strip_prefix("| [")?.split_once(']'));
        let mut found = BTreeSet::new();
        for (name, row) in rows.filter(|(_, row)| row.starts_with("(src/")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let named: BTreeSet<&str> = cells[3].split(", ").filter(|used| !used.is_empty()).collect();
            let manifest = read(&format!("src/{name}/Cargo.toml"));
            let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
            let dependencies = lines.take_while(|line| !line.starts_with('['));
            let used: BTreeSet<&str> =
                dependencies.filter_map(|line| line.strip_prefix("peregrine-")?.split(['.', ' ']).next()).collect();
            assert_eq!(named, used, "ARCHITECTURE.md and src/{name}/Cargo.toml");
            found.insert(name.to_owned());
        }
        let crates: BTreeSet<String> = children(&root().join("src"))
            .into_iter()
            .filter(|folder| folder.join("Cargo.toml").exists())
            .filter_map(|folder| folder.file_name().map(|name| name.to_string_lossy().into_owned()))
            .collect();
        assert_eq!(found, crates);
    }

    #[test]
    fn cargo_commands_in_the_documents_name_what_exists() {
        let mut manifests = read("Cargo.toml");
        for folder in [root().join("src"), root().join("tests")] {
            for child in children(&folder) {
                manifests += &fs::read_to_string(child.join("Cargo.toml")).unwrap_or_default();
            }
        }
        let examples: Vec<_> =
            children(&root().join("src")).iter().flat_map(|c| children(&c.join("examples"))).collect();
        let mut found = 0;
        for document in documents() {
            for line in document.commands().into_iter().chain(document.spans()).filter(|l| l.starts_with("cargo ")) {
                for pair in words(&line).windows(2) {
                    let [option, name] = pair else { continue };
                    let known = match option.as_str() {
                        "-p" | "--bench" | "--bin" | "--test" => manifests.contains(&format!("name = \"{name}\"")),
                        "--features" => name.split(',').all(|f| manifests.contains(&format!("\n{f} = ["))),
                        "--example" => {
                            examples.iter().any(|path| path.file_stem().is_some_and(|stem| stem == name.as_str()))
                        }
                        _ => continue,
                    };
                    assert!(known, "{}: {line}: {name}", document.path);
                    found += 1;
                }
            }
        }
        assert!(found > 5, "{found}");
    }

    /// Programs whose lines other tests parse, or that are not the project's.
    #[test]
    fn every_command_in_the_documents_is_of_a_known_program() {
        let parsed = ["distill", "latency_bench", "perception_node", "make", "cargo"];
        let foreign = [
            ".", "alias", "cat", "docker", "eval", "export", "git", "kubectl", "mpirun", "pip", "ros2", "rviz2",
            "rustup", "sbatch", "sudo",
        ];
        for document in documents() {
            let commands = document.commands();
            for command in commands.iter().flat_map(|command| command.split("&&")) {
                let words = words(command);
                let program =
                    words.iter().find(|word| !word.contains('=') || word.starts_with('-')).map_or("", String::as_str);
                let own = program.trim_start_matches("target/release/");
                let known =
                    program.is_empty() || parsed.contains(&own) || foreign.contains(&program) || exists(program);
                assert!(known || program.starts_with("peregrine-gpu/"), "{}: {command}", document.path);
            }
        }
    }

    #[test]
    fn commands_are_joined_and_freed_of_comments_and_here_documents() {
        let text = "```sh\na b \\\n  c   # why\ncat > x <<'END'\nd = 1\nEND\n# only a comment\n```\n`e --f` and\n```text\ng\n```\n";
        let document = Document { path: "x.md".into(), text: text.into() };
        assert_eq!(document.commands(), ["a b    c", "cat > x"]);
        assert_eq!(document.spans(), ["e --f"]);
        assert_eq!(words("a \"b c\" d=\"e f\""), ["a", "b c", "d=e f"]);
    }
}
