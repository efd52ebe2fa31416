//! What is written down in two places says the same in both. `make bless` rewrites what is generated.

use std::path::Path;
use std::process::Command;

use broadcast_operator::api::crds;

use crate::common::{file, root};

/// Compares a file with what it should be, or writes it when `BLESS` is set.
fn expect_file(path: &str, wanted: &str) {
    if std::env::var_os("BLESS").is_some() {
        let path = root().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("should make the folder");
        std::fs::write(path, wanted).expect("should write the file");
        return;
    }
    let found = std::fs::read_to_string(root().join(path)).unwrap_or_default();
    assert!(found == wanted, "{path} is not what the code says: run `make bless` and commit the result");
}

#[test]
fn crds_are_as_the_types_say() {
    for definition in crds::values() {
        let plural = definition["spec"]["names"]["plural"].as_str().expect("plural");
        let document = crds::document(&definition);
        expect_file(&format!("crds/{plural}.yaml"), &document);
        expect_file(&format!("charts/broadcast-operator/crd-files/{plural}.yaml"), &document);
    }
}

#[test]
fn the_readme_lists_the_flags_as_the_program_does() {
    let help = Command::new(env!("CARGO_BIN_EXE_broadcast-operator"))
        .args(["run", "--help"])
        .env("COLUMNS", "100")
        .output()
        .expect("should run");
    let help = String::from_utf8(help.stdout).expect("text");
    let readme = file("README.md");
    let (before, rest) = readme.split_once("<!-- flags -->\n").expect("README.md has a place for the flags");
    let (_, after) = rest.split_once("<!-- /flags -->").expect("README.md has an end of the flags");
    let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    expect_file("README.md", &format!("{before}<!-- flags -->\n```text\n{help}```\n<!-- /flags -->{after}"));
}

#[test]
fn the_domain_is_pure() {
    let banned = [
        "async ",
        ".await",
        "tokio::",
        "reqwest::",
        "kube::",
        "rand::",
        "std::env",
        "std::fs",
        "std::net",
        "crate::clock",
    ];
    each_file(&root().join("src/domain"), &mut |path, text| {
        for word in banned {
            // `kube::ResourceExt` reads names and uids of objects, and does nothing else.
            let found = text.lines().any(|line| line.contains(word) && !line.contains("kube::ResourceExt"));
            assert!(
                !found,
                "{} contains `{word}`: decisions are pure, effects belong elsewhere",
                path.display()
            );
        }
    });
}

#[test]
fn no_file_is_too_long() {
    for folder in ["src", "tests", "benches"] {
        each_file(&root().join(folder), &mut |path, text| {
            let lines = text.lines().count();
            assert!(lines <= 450, "{} has {lines} lines: split it by what it does", path.display());
        });
    }
}

#[test]
fn the_docs_name_every_metric() {
    let docs = file("docs/operations.md");
    let source = file("src/metrics.rs");
    let names = source.split('"').filter(|text| {
        ["broadcast_", "controller_runtime_", "rest_client_"].iter().any(|prefix| text.starts_with(prefix))
            && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    });
    for name in names {
        assert!(docs.contains(name), "docs/operations.md does not name {name}");
    }
}

#[test]
fn the_docs_name_every_field_of_a_status_and_what_writes_it() {
    let docs = file("docs/api.md");
    for definition in crds::values() {
        let kind = definition["spec"]["names"]["kind"].as_str().expect("kind");
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        // A batch is a page of the ledger, and has its own table.
        let Some(fields) = schema["properties"].as_object().filter(|_| kind != "BroadcastBatch") else {
            continue;
        };
        let section = docs.split(&format!("\n## {kind}\n")).nth(1).expect("a section of the kind");
        let section = section.split("\n## ").next().expect("its text");
        let (_, table) =
            section.split_once("| field | meaning | written by |\n|---|---|---|\n").expect("a table");
        let named: Vec<&str> = table
            .lines()
            .map_while(|line| line.strip_prefix("| `")?.split('`').next())
            .map(|field| field.trim_end_matches("[]"))
            .collect();
        let missing: Vec<_> = fields.keys().filter(|field| !named.contains(&field.as_str())).collect();
        let gone: Vec<_> = named.iter().filter(|field| !fields.contains_key(**field)).collect();
        assert!(
            missing.is_empty() && gone.is_empty(),
            "docs/api.md, {kind}: lacks {missing:?}, and has {gone:?}"
        );
    }
}

fn each_file(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("should be readable").path();
        if path.is_dir() {
            each_file(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &std::fs::read_to_string(&path).expect("should be text"));
        }
    }
}
