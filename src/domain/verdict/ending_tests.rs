use super::*;

#[test]
fn a_broadcast_that_nobody_has_is_complete_and_no_success() {
    let failed = ["Ready=False/AllFailed", "Complete=True/AllFailed", "Suspended=False/AllFailed"];
    let status = judge(&sealed(3), Some(&channel()), page(&[Failed, Failed, Skipped], 0..0));
    assert_eq!(conditions(&status)[..3], failed);
    assert_eq!(conditions(&status)[3], "Stalled=True/AllFailed");
    assert!(status.completion_time.is_some());
    let message = &status.conditions[0].message;
    assert!(message.starts_with("0 of 3") && message.contains("restartFrom"), "{message}");
    // One that may have it is not nobody, and where nothing was tried nothing went wrong.
    for outcomes in [[Failed, Unknown, Skipped], [Failed, Sent, Failed], [Skipped, Skipped, Skipped]] {
        let status = judge(&sealed(3), Some(&channel()), page(&outcomes, 0..0));
        assert_eq!(conditions(&status)[0], "Ready=True/Succeeded", "{outcomes:?}");
    }
    // With its log out of view it stays what it was; a receipt that comes late makes a success of it.
    let mut complete = sealed(3);
    complete.status = Some(BroadcastStatus { audience_digest: Some("d".into()), ..status });
    let gone = status_of(&Observation {
        broadcast: &complete,
        channel: Some(&channel()),
        pages: &[],
        stage: &Stage::Sealed,
        restart_refused: None,
        now: now(),
    });
    assert_eq!(conditions(&gone)[..3], failed);
    let proven = judge(&complete, Some(&channel()), page(&[Delivered, Failed, Skipped], 0..0));
    assert_eq!(conditions(&proven)[0], "Ready=True/Succeeded");
}

#[test]
fn a_broadcast_whose_first_messages_failed_says_so_when_there_were_no_others() {
    let mut broadcast = sealed(2);
    let stop = StopStatus {
        reason: StopReason::FirstMessagesFailed,
        code: "131009".into(),
        message: "bad parameter".into(),
        observed_generation: 3,
    };
    broadcast.status.as_mut().expect("status").stop = Some(stop);
    for outcomes in [[Failed, Failed], [Failed, Unknown]] {
        let status = judge(&broadcast, Some(&channel()), page(&outcomes, 0..0));
        assert_eq!(conditions(&status)[1], "Complete=True/FirstMessagesFailed");
        let stalled = Condition::find(&status.conditions, "Stalled").expect("needs a person");
        assert!(stalled.message.contains("131009: bad parameter"), "{stalled:?}");
    }
    let status = judge(&broadcast, Some(&channel()), page(&[Failed, Sent], 0..0));
    assert_eq!(conditions(&status)[0], "Ready=True/Succeeded");
}
