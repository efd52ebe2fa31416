//! The examples are applied as they stand, by kubectl, and do what they say.

use crate::common::root;
use crate::common::stage::{Stage, counts};

#[tokio::test(flavor = "multi_thread")]
async fn every_example_does_what_it_says() {
    let stage = Stage::bare().await;
    let example = |name: &str| root().join("examples").join(name).display().to_string();
    // The gateway of the examples listens on a fixed port; here it is on another one.
    let channel = crate::common::file("examples/01-channel.yaml");
    let channel = channel.replace("http://127.0.0.1:8080", &stage.gateway.url());
    stage.gateway.set_token(Some("example-token".into()));
    stage.plane.kubectl(&["apply", "-n", &stage.namespace, "-f", "-"], &channel);

    stage.kubectl(&["apply", "-f", &example("02-minimal.yaml")]);
    stage.kubectl(&["apply", "-f", &example("03-personalised.yaml")]);
    stage.kubectl(&["apply", "-f", &example("04-csv.yaml")]);
    stage.accepted("spring-sale", 3).await;
    stage.kubectl(&["patch", "bc", "spring-sale", "--type=merge", "--patch-file", &example("05-stop.yaml")]);
    stage.wait_state("spring-sale", "Stopped").await;
    stage.kubectl(&[
        "patch",
        "bc",
        "spring-sale",
        "--type=merge",
        "--patch-file",
        &example("06-resume.yaml"),
    ]);
    stage.accepted("spring-sale", 5).await;
    stage.kubectl(&["patch", "bc", "spring-sale", "--type=merge", "--patch-file", &example("05-stop.yaml")]);
    let stopped = stage.wait_state("spring-sale", "Stopped").await;
    assert_eq!(counts(&stopped).skipped, 5, "as its comment says");

    stage.kubectl(&["apply", "-f", &example("07-restart-corrected.yaml")]);
    let corrected = stage.complete("spring-sale-corrected").await;
    assert_eq!(counts(&corrected).sent + counts(&stopped).sent, 30, "as its comment says");
    stage.kubectl(&["apply", "-f", &example("08-pacing-and-retry.yaml")]);
    stage.kubectl(&["apply", "-f", &example("09-campaign.yaml")]);
    for name in names(&stage) {
        if name != "spring-sale" {
            stage.complete(&name).await;
        }
    }
    stage.kubectl(&["delete", "-f", &example("09-campaign.yaml"), "--timeout=60s"]);
    stage.kubectl(&["apply", "-f", &example("09-campaign.yaml")]);
    stage.wait_state("loyalty-points", "CampaignAlreadySent").await;
    let twice = stage.gateway.ledger().summary().requests.twice;
    assert_eq!((twice.chats, twice.tokens), (0, 0));
}

fn names(stage: &Stage) -> Vec<String> {
    let names = stage.kubectl(&["get", "bc", "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_every_provider_is_sent() {
    let stage = Stage::bare().await;
    let base = at_gateway(&stage.gateway.url());
    stage.gateway.set_token(None);
    for (file, broadcast) in [
        ("10-whatsapp.yaml", "spring-sale-whatsapp"),
        ("11-telegram.yaml", "opening-hours-telegram"),
        ("12-twilio.yaml", "order-ready-sms"),
        ("13-periskope.yaml", "schedule-periskope"),
        ("14-postback.yaml", "welcome-postback"),
    ] {
        let text = crate::common::file(&format!("examples/{file}"));
        let text: Vec<String> = text.lines().map(&base).collect();
        stage.plane.kubectl(&["apply", "-n", &stage.namespace, "-f", "-"], &text.join("\n"));
        let done = stage.complete(broadcast).await;
        let counts = counts(&done);
        assert!(counts.sent > 0 && counts.failed + counts.unknown == 0, "{file}: {counts:?}");
    }
    let suppression = root().join("examples/15-suppression.yaml").display().to_string();
    stage.kubectl(&["apply", "-f", &suppression]);
}

/// A line with the address of the simulator in place of the provider's.
fn at_gateway(gateway: &str) -> impl Fn(&str) -> String + use<> {
    let gateway = gateway.to_owned();
    move |line| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match rest.split_once(": ") {
            Some(("baseUrl", _)) => format!("{indent}baseUrl: {gateway}"),
            Some(("url", value)) if value.starts_with("http://127.0.0.1") => {
                format!("{indent}url: {}", value.replace("http://127.0.0.1:8080", &gateway))
            }
            _ => line.to_owned(),
        }
    }
}
