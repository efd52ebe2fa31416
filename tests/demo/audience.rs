//! The audience: the same people at every run, and what is wrong with some of them.

use serde_json::{Value, json};

/// Chats that can be sent to.
pub const CHATS: usize = 2000;
/// Rows that nobody can send to. They are in the log all the same.
pub const BAD_ROWS: [&str; 5] = [
    ",Ina,Bergen",                     // no chat
    "ask at the counter,Jon,Oslo",     // no phone number
    "17,Kai,Oslo",                     // too short for one
    "+1 555 010 0002,Bodil,Stavanger", // a chat that is there already, spelt otherwise
    "15550109999,Liv,Oslo,Norway",     // a field too many
];
/// So many rows lie between two bad ones.
const BAD_ROW_EVERY: usize = 150;

/// Numbers of chats whose phone number the gateway does not know, before and after the half.
const GONE: [usize; 7] = [38, 214, 391, 777, 1240, 1502, 1893];
/// Numbers of chats that the gateway cannot reach at first, and can when it is tried by the restart.
const AWAY: [usize; 4] = [96, 305, 512, 843];
/// The gateway takes the message and cuts the connection. Its receipt says so later.
const CUT_AFTER: usize = 150;
/// The gateway cuts the connection. Nobody but the gateway knows that it did not take the message.
const CUT_BEFORE: usize = 450;

const NAMES: [&str; 41] = [
    "Ana", "Anders", "Aksel", "Berit", "Birk", "Carla", "Cleo", "Dagny", "Dev", "Eirik", "Elif", "Emeka",
    "Fatima", "Gus", "Hana", "Henrik", "Ida", "Ines", "Jo", "Kaisa", "Kim", "Leila", "Lou", "Magnus", "Mei",
    "Mia", "Nils", "Noor", "Ole", "Oskar", "Pia", "Quinn", "Rosa", "Sanna", "Sven", "Tariq", "Tuva", "Uma",
    "Vera", "Yara", "Zoe",
];
const CITIES: [&str; 11] = [
    "Oslo",
    "Bergen",
    "Tromsø",
    "Stavanger",
    "Bodø",
    "Trondheim",
    "Drammen",
    "Hamar",
    "Molde",
    "Narvik",
    "Alta",
];

/// The CSV file, bad rows in between.
pub fn csv() -> String {
    let mut csv = String::from("phone,name,city\n");
    let mut bad = BAD_ROWS.iter();
    for number in 0..CHATS {
        // Lists of 41 and 11: a name meets every city before a pair comes again.
        csv +=
            &format!("{},{},{}\n", chat(number), NAMES[number % NAMES.len()], CITIES[number % CITIES.len()]);
        if number % BAD_ROW_EVERY == BAD_ROW_EVERY - 1 {
            csv += &bad.next().map(|row| format!("{row}\n")).unwrap_or_default();
        }
    }
    csv
}

/// What goes wrong at the gateway, as the simulator's flag `--faults` takes it.
pub fn faults(first: &str) -> Value {
    let chats = |numbers: &[usize]| numbers.iter().map(|number| chat(*number)).collect::<Vec<_>>();
    let refuse = |code, message| json!({"refuse": {"status": 400, "code": code, "message": message}});
    json!([
        {"when": {"chats": chats(&GONE)}, "do": refuse("unknown_number", "this number has no account")},
        {"when": {"chats": chats(&AWAY), "broadcast": first}, "do": refuse("mailbox_full", "takes no messages now")},
        {"when": {"chats": chats(&[CUT_AFTER])}, "do": {"resetAfterAccept": {}}},
        {"when": {"chats": chats(&[CUT_BEFORE])}, "do": {"resetBeforeAccept": {}}},
    ])
}

fn chat(number: usize) -> String {
    format!("1555{:07}", 100_001 + number)
}
