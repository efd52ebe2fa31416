use super::*;

#[test]
fn a_broadcast_that_stopped_by_itself_needs_a_person_and_goes_on_when_its_spec_is_changed() {
    let mut broadcast = sealed(2);
    broadcast.metadata.generation = Some(3);
    let stop = StopStatus {
        reason: StopReason::TemplateUnavailable,
        code: "132015".into(),
        message: "paused".into(),
        observed_generation: 3,
    };
    broadcast.status.as_mut().expect("status").stop = Some(stop);
    let stopped = judge(&broadcast, Some(&channel()), page(&[Sent, Pending], 0..0));
    assert_eq!(conditions(&stopped)[0], "Ready=False/TemplateUnavailable");
    let stalled = Condition::find(&stopped.conditions, "Stalled").expect("needs a person");
    assert!(
        stalled.message.contains("132015: paused") && stalled.message.contains("restartFrom"),
        "{stalled:?}"
    );

    broadcast.metadata.generation = Some(4);
    let going_on = judge(&broadcast, Some(&channel()), page(&[Sent, Pending], 0..0));
    assert_eq!(going_on.stop, None);
    assert!(going_on.settled_time.is_some() && stopped.settled_time.is_none());
    assert!(!conditions(&going_on).iter().any(|condition| condition.contains("Stalled=True")));
}

#[test]
fn a_message_that_nobody_was_asked_about_is_not_said_to_be_refused() {
    let mut broadcast = sealed(2);
    broadcast.status.as_mut().expect("status").stop = Some(StopStatus {
        reason: StopReason::MessageNotSupported,
        code: "UnsupportedContent".into(),
        message: "no templates".into(),
        observed_generation: broadcast.metadata.generation.unwrap_or_default(),
    });
    let stopped = judge(&broadcast, Some(&channel()), page(&[Sent, Pending], 0..0));
    assert_eq!(conditions(&stopped)[0], "Ready=False/MessageNotSupported");
    let said = &Condition::find(&stopped.conditions, "Stalled").expect("needs a person").message;
    assert!(said.contains("the provider was not asked (UnsupportedContent: no templates)"), "{said}");
}
