use super::*;

const AFTER: Duration = Duration::from_secs(15 * 60);

fn start() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn at(minutes: i64) -> Timestamp {
    later(start(), SignedDuration::from_mins(minutes))
}

fn row(outcome: Outcome, minutes: i64, id: &str) -> Row {
    Row::known(outcome, 1, at(minutes)).with_message_id(id)
}

fn page() -> PageNumber {
    (BroadcastUid::new("sale".into()), 0)
}

/// The minutes at which messages of a page are asked about, by who looks each minute for `days`.
fn asked(rows: &[Row], schedule: &Schedule, days: i64) -> Vec<(i64, usize)> {
    let (mut looks, mut asked) = (Looks::default(), Vec::new());
    let waiting = Waiting::of(rows);
    for minute in 0..days * 24 * 60 {
        let now = at(minute);
        let next = waiting.and_then(|waiting| schedule.next_look(&waiting, looks.last(&page())));
        if next.is_some_and(|next| next <= now) {
            let due = looks.due(&page(), schedule, rows, now);
            asked.extend(due.into_iter().map(|(row, _)| (minute, row)));
            looks.note(&page(), now);
        }
    }
    asked
}

#[test]
fn a_message_without_a_last_word_is_asked_about_after_a_quarter_hour_1_6_and_24_hours_and_never_again() {
    let rows = [row(Outcome::Sent, 0, "SM1")];
    assert_eq!(asked(&rows, &Schedule::new(AFTER), 8), [15, 60, 360, 1440].map(|minute| (minute, 0)));
}

#[test]
fn the_steps_grow_with_the_wait_and_end_after_four_days() {
    let rows = [row(Outcome::Sent, 0, "SM1")];
    let of = |hours: u64| asked(&rows, &Schedule::new(Duration::from_secs(hours * 3600)), 40);
    assert_eq!(of(1), [60, 240, 1440].map(|minute| (minute, 0)), "96 hours are too late");
    assert_eq!(of(24), [(1440, 0)]);
}

#[test]
fn only_messages_with_an_id_and_no_last_word_are_asked_about() {
    let rows = [
        row(Outcome::Sent, 0, "SM0"),
        row(Outcome::Sent, 0, ""),
        row(Outcome::Delivered, 0, "SM2"),
        row(Outcome::Read, 0, "SM3"),
        row(Outcome::Failed, 0, "SM4"),
        row(Outcome::Unknown, 0, "SM5"),
        row(Outcome::Unknown, 0, ""),
        row(Outcome::Pending, 0, "SM7"),
        Row::pending(),
    ];
    let due = Looks::default().due(&page(), &Schedule::new(AFTER), &rows, at(15));
    assert_eq!(due, [(0, "SM0".to_owned()), (5, "SM5".to_owned())]);
    assert_eq!(Waiting::of(&rows[1..5]), None);
}

#[test]
fn each_message_of_a_page_is_asked_about_as_often_as_if_it_were_alone() {
    // A page that was stopped between its messages.
    let rows: Vec<Row> = (0..20).map(|number| row(Outcome::Sent, 7 * number, "SM")).collect();
    let asked = asked(&rows, &Schedule::new(AFTER), 8);
    for number in 0..rows.len() {
        let of_row: Vec<i64> =
            asked.iter().filter(|(_, row)| *row == number).map(|(minute, _)| *minute).collect();
        let sent = 7 * i64::try_from(number).expect("small");
        assert_eq!(of_row.len(), 4, "{number}: {of_row:?}");
        for (asked, step) in of_row.iter().zip([15, 60, 360, 1440]) {
            let late = asked - sent - step;
            assert!((0..=4).contains(&late), "{number}: {late} minutes late");
        }
    }
}

#[test]
fn a_new_process_asks_once_more_and_about_nothing_that_is_too_old() {
    let schedule = Schedule::new(AFTER);
    let due = |hours: i64| schedule.is_due(at(0), None, at(60 * hours));
    assert!(due(1) && due(30) && due(95));
    assert!(!due(96) && !due(1000));
    let waiting = Waiting::of(&[row(Outcome::Sent, 0, "SM1")]).expect("one");
    assert!(!waiting.is_over(at(60 * 96 - 1)) && waiting.is_over(at(60 * 96)));
}

#[test]
fn what_the_provider_knows_nothing_of_is_not_asked_about_again() {
    let rows = [row(Outcome::Sent, 0, "SM0"), row(Outcome::Sent, 0, "SM1")];
    let (schedule, mut looks) = (Schedule::new(AFTER), Looks::default());
    looks.note_gone(&page(), 0);
    for minute in [15, 60, 360, 1440] {
        let due = looks.due(&page(), &schedule, &rows, at(minute));
        assert_eq!(due, [(1, "SM1".to_owned())], "after {minute} minutes");
        looks.note(&page(), at(minute));
    }
}

#[test]
fn a_look_that_was_broken_off_is_begun_again() {
    let rows = [row(Outcome::Sent, 0, "SM0")];
    let (schedule, looks) = (Schedule::new(AFTER), Looks::default());
    assert_eq!(looks.due(&page(), &schedule, &rows, at(15)).len(), 1);
    assert_eq!(looks.due(&page(), &schedule, &rows, at(16)).len(), 1, "nobody said that it was answered");
}

#[test]
fn pages_that_are_gone_leave_nothing_behind() {
    let mut looks = Looks::default();
    let other = (BroadcastUid::new("other".into()), 0);
    looks.note(&page(), at(0));
    looks.note(&other, at(0));
    looks.retain(|number| *number == other);
    assert_eq!((looks.last(&page()), looks.last(&other), looks.pages.len()), (None, Some(at(0)), 1));
}

#[test]
fn a_clock_that_is_at_its_end_breaks_nothing() {
    let schedule = Schedule::new(Duration::from_secs(u64::MAX));
    let waiting = Waiting { oldest: Timestamp::MAX, newest: Timestamp::MAX };
    assert_eq!(schedule.next_look(&waiting, Some(Timestamp::MAX)), None);
    assert!(!Schedule::new(AFTER).is_due(Timestamp::MAX, None, Timestamp::MAX));
}
