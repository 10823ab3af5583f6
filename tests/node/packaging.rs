//! What installs the node names what is there: package.xml, CMakeLists.txt, the systemd unit, the
//! Dockerfiles.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The contents of each `<element>` of a flat XML file.
fn elements(xml: &str, element: &str) -> Vec<String> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    xml.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0.trim().to_owned())).collect()
}

#[test]
fn the_package_has_cargos_name_and_version() {
    let xml = text("package.xml");
    assert_eq!(elements(&xml, "name"), [env!("CARGO_PKG_NAME")]);
    assert_eq!(elements(&xml, "version"), [env!("CARGO_PKG_VERSION")]);
    assert_eq!(elements(&xml, "license"), [env!("CARGO_PKG_LICENSE")]);
}

#[test]
fn the_build_generates_the_messages_that_the_set_up_does() {
    let listed = |text: &str, begin: &str, end: &str| -> Vec<String> {
        let rest = text.split_once(begin).expect("it begins").1;
        rest.split_once(end).expect("it ends").0.split_whitespace().map(str::to_owned).collect()
    };
    let mut cmake = listed(&text("CMakeLists.txt"), "set(messages ", ")");
    let environment = text("launch/setup/env.sh");
    let lists = environment.lines().filter_map(|l| l.strip_prefix("filter='").or(l.strip_prefix("filter+=';")));
    let mut set_up: Vec<_> =
        lists.flat_map(|l| l.trim_end_matches('\'').split(';').map(str::to_owned).collect::<Vec<_>>()).collect();
    cmake.sort();
    set_up.sort();
    assert_eq!(cmake, set_up);
}

#[test]
fn the_node_is_built_with_all_features_whoever_builds_it() {
    let makefile = text("Makefile");
    let shipped = makefile.lines().find_map(|line| line.strip_prefix("SHIPPED := ")).expect("it names the features");
    assert_eq!(shipped, "ros,cuda,video");
    assert!(text("CMakeLists.txt").contains(&format!("--features {shipped}\n")));
    for file in ["packaging/Dockerfile.x86", "packaging/Dockerfile.jetson"] {
        let file = text(file);
        assert!(file.contains("colcon build") && file.contains("launch/setup/nvrtc.sh"));
    }
}

#[test]
fn kernels_compiled_for_a_gpu_are_kept_between_starts() {
    let unit = text("packaging/peregrine.service");
    let folder = unit.lines().find_map(|line| line.strip_prefix("CacheDirectory=")).expect("systemd makes the folder");
    assert!(unit.contains(&format!("Environment=PEREGRINE_CUDA_CACHE=%C/{folder}\n")));
    for file in ["packaging/Dockerfile.x86", "packaging/Dockerfile.jetson"] {
        let text = text(file);
        let set = text.lines().find_map(|line| line.strip_prefix("ENV PEREGRINE_CUDA_CACHE="));
        let folder = set.unwrap_or_else(|| panic!("{file} sets no cache"));
        assert!(text.contains(&format!("install -d -o peregrine {folder}")), "{file} lets the node write there");
        assert!(text.contains(&format!("-v peregrine-cache:{folder} ")), "{file} tells how it is kept");
    }
}

#[test]
fn what_is_copied_or_installed_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["packaging/Dockerfile.x86", "packaging/Dockerfile.jetson"] {
        for line in text(file).lines().filter_map(|l| l.strip_prefix("COPY ")).filter(|l| !l.starts_with("--from")) {
            let source = line.split_whitespace().next().unwrap();
            assert!(root.join(source).exists(), "{file} copies {source}");
        }
    }
}

/// Installs what CMakeLists.txt says, with programs that are none and without anything of ament;
/// what was installed.
fn installed(folder: &Path) -> Option<PathBuf> {
    let (ament, programs) = (folder.join("ament"), folder.join("target/release"));
    [&ament, &programs].iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    fs::write(ament.join("ament_cmakeConfig.cmake"), "macro(ament_package)\nendmacro()\n").unwrap();
    for program in ["perception_node", "distill", "latency_bench"] {
        fs::write(programs.join(program), "").unwrap();
    }
    let (build, prefix) = (folder.join("build"), folder.join("prefix"));
    let set = |name: &str, path: &Path| format!("-D{name}={}", path.display());
    let mut configure = Command::new("cmake");
    configure.args(["-S", env!("CARGO_MANIFEST_DIR"), "-B"]).arg(&build).args([
        set("ament_cmake_DIR", &ament),
        set("CARGO_TARGET_DIR", &folder.join("target")),
        set("CMAKE_INSTALL_PREFIX", &prefix),
    ]);
    let mut install = Command::new("cmake");
    install.arg("--install").arg(&build);
    for command in [&mut configure, &mut install] {
        let Ok(output) = command.output() else {
            peregrine_support::skip("cmake", "cmake is not installed");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Some(prefix)
}

#[test]
fn installed_launch_files_name_what_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(prefix) = installed(folder.path()) else { return };
    let launch = prefix.join("share/peregrine/launch");
    for file in ["perception.launch.py", "perception.rviz", "foxglove.json", "perception.yaml"] {
        assert!(launch.join(file).is_file(), "{file}");
    }
    let mut checked = 0;
    for file in fs::read_dir(&launch).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&file).unwrap();
        if !file.to_string_lossy().ends_with(".launch.xml") {
            continue;
        }
        for named in text.split("$(dirname)/").skip(1) {
            let named = named.split(|c: char| c.is_whitespace() || "\")".contains(c)).next().unwrap();
            assert!(launch.join(named).exists(), "{} names {named}", file.display());
            checked += 1;
        }
    }
    assert!(checked > 6, "{checked}");
}

/// Runs a linter that may not be there.
fn lint(program: &str, arguments: &[&str]) {
    match Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output() {
        Err(_) => peregrine_support::skip(program, &format!("{program} is not installed")),
        Ok(output) => {
            let said =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            assert!(output.status.success(), "{program}: {said}");
        }
    }
}

#[test]
fn the_dockerfiles_pass_hadolint() {
    lint("hadolint", &["packaging/Dockerfile.x86", "packaging/Dockerfile.jetson"]);
}

#[test]
fn the_systemd_unit_is_understood_by_systemd() {
    lint("systemd-analyze", &["verify", "packaging/peregrine.service"]);
}

#[test]
fn the_entry_point_passes_shellcheck() {
    lint("shellcheck", &["packaging/entrypoint.sh"]);
}
