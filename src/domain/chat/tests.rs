//! What becomes of the chats of each provider.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

use ProviderName::{Http, Periskope, Telegram, Twilio, WhatsApp};

const ALL: [ProviderName; 5] = [Http, WhatsApp, Telegram, Twilio, Periskope];
const PHONES: [ProviderName; 3] = [WhatsApp, Twilio, Periskope];

fn rules(provider: ProviderName, region: Option<&str>) -> ChatRules {
    ChatRules { provider, region: region.map(str::to_owned) }
}

/// The one form, or the reason.
fn outcome(rules: &ChatRules, chat: &str) -> String {
    rules.normalise(chat).unwrap_or_else(|problem| problem.to_string())
}

#[test]
fn phone_numbers_become_their_digits_or_say_what_is_wrong() {
    let table: &[(Option<&str>, &str, &str)] = &[
        (None, "+34 600 111 222", "34600111222"),
        (None, "34600111222", "34600111222"),
        (None, "0034-600-111-222", "34600111222"),
        (None, "(+34) 600.111.222", "34600111222"),
        (None, "\u{202a}+34\u{a0}600\u{2011}111\u{2011}222\u{202c}", "34600111222"),
        (None, "+44 (0)7911 123456", "447911123456"),
        (None, "+39 06 1234 5678", "390612345678"),
        (None, "+1 (555) 010-0123", "15550100123"),
        (None, "+225 07 07 07 07 07", "2250707070707"),
        (None, "+52 1 55 1234 5678", "5215512345678"),
        (None, "+52 55 1234 5678", "525512345678"),
        (None, "+800 1234 5678", "80012345678"),
        (Some("ES"), "600 111 222", "34600111222"),
        (Some("ES"), "34600111222", "34600111222"),
        (Some("ES"), "+4915112345678", "4915112345678"),
        (Some("ES"), "004915112345678", "4915112345678"),
        (Some("DE"), "0151/12345678", "4915112345678"),
        (Some("DE"), "4915112345678", "4915112345678"),
        (Some("DE"), "15112345678", "4915112345678"),
        (Some("DE"), "04915 123456", "494915123456"),
        (Some("GB"), "07911 123456", "447911123456"),
        (Some("IT"), "06 1234 5678", "390612345678"),
        (Some("RU"), "8 800 555-35-35", "78005553535"),
        (Some("AR"), "011 15 2345-6789", "5491123456789"),
        (Some("US"), "(650) 123-4567", "16501234567"),
        (Some("US"), "011 44 7911 123456", "447911123456"),
        (Some("US"), "+33 1 42 76 49 78", "33142764978"),
        (Some("MX"), "5215512345678", "5215512345678"),
        // Not given out, but of the right length: a new range looks like this.
        (None, "+852 6000 0000", "85260000000"),
        (None, "+34 600", "InvalidPhoneNumber: too short for ES"),
        (Some("ES"), "1234567", "InvalidPhoneNumber: too short for ES"),
        (Some("ES"), "112", "InvalidPhoneNumber: too short for ES"),
        (Some("ES"), "4915112345678", "InvalidPhoneNumber: too long for ES"),
        (None, "+34 600 111 222 3", "InvalidPhoneNumber: too long for ES"),
        (None, "+1 555 0100", "InvalidPhoneNumber: too short for +1"),
        (Some("US"), "555-0100", "InvalidPhoneNumber: too short for US"),
        (
            None,
            "+999123456789",
            "InvalidPhoneNumber: it begins with the code of no country: add the right one; for numbers without `+` and code, give the channel its defaultRegion",
        ),
        (None, "600111222333444555666", "InvalidPhoneNumber: too long"),
        (Some("XX"), "600111222", "InvalidPhoneNumber: defaultRegion XX of the channel is no country"),
        (None, "600+111222", "NotAPhoneNumber: a phone number has digits, spaces and +-()./ alone"),
        (None, "-1001234567890", "NotAPhoneNumber: a phone number has digits, spaces and +-()./ alone"),
        (None, "1-800-FLOWERS", "NotAPhoneNumber: a phone number has digits, spaces and +-()./ alone"),
        (None, "+34600111222 ext. 5", "NotAPhoneNumber: a phone number has digits, spaces and +-()./ alone"),
        (None, "@channel", "NotAPhoneNumber: a phone number has digits, spaces and +-()./ alone"),
        (None, "", "NotAPhoneNumber: a phone number has digits, spaces and +-()./ alone"),
        (None, "34600111222.0", "InvalidChat: what a spreadsheet left of a number, or nothing"),
        (None, "3.46E+10", "InvalidChat: what a spreadsheet left of a number, or nothing"),
        (None, "n/a", "InvalidChat: what a spreadsheet left of a number, or nothing"),
    ];
    for (region, chat, wanted) in table {
        assert_eq!(outcome(&rules(Twilio, *region), chat), *wanted, "{chat:?} in {region:?}");
        if !chat.contains("FLOWERS") {
            assert_eq!(outcome(&rules(WhatsApp, *region), chat), *wanted, "{chat:?} in {region:?}");
        }
        assert_eq!(outcome(&rules(Periskope, *region), chat), *wanted, "{chat:?} in {region:?}");
    }
}

#[test]
fn each_provider_has_ids_of_its_own() {
    let no_phone = "NotAPhoneNumber: a phone number has digits, spaces and +-()./ alone";
    let no_id = "InvalidChat: not a chat id of Telegram, nor an @name of 5 to 32 letters, digits and _";
    let phone = "InvalidChat: Telegram needs the chat id, not a phone number";
    let table = [
        (Http, "123-456@g.us", "123-456@g.us"),
        (Http, "ana@example.com", "ana@example.com"),
        (Http, "12", "InvalidChat: not a phone number or chat id"),
        (WhatsApp, "Y2FwaV9ncm91cDox+/=", "Y2FwaV9ncm91cDox+/="),
        (WhatsApp, "nobody", no_phone),
        (WhatsApp, "34600111222@c.us", no_phone),
        (
            WhatsApp,
            "120363040000000000@g.us",
            "GroupNotSupported: an id of a group on a phone; groups of the Cloud API have ids of their own, without @",
        ),
        (Twilio, "120363040000000000@g.us", "GroupNotSupported: Twilio sends to phone numbers alone"),
        (Twilio, "Y2FwaV9ncm91cDox", no_phone),
        (Periskope, "34600111222@c.us", "34600111222"),
        (Periskope, "600@c.us", "InvalidPhoneNumber: too short"),
        (Periskope, "ana@c.us", no_phone),
        (Periskope, "120363040000000000@g.us", "120363040000000000@g.us"),
        (Periskope, "34600111222-1500000000@g.us", "34600111222-1500000000@g.us"),
        (Periskope, "@g.us", no_phone),
        (Periskope, "ana@g.us", no_phone),
        (Periskope, "Y2FwaV9ncm91cDox", no_phone),
        (Telegram, "123456789", "123456789"),
        (Telegram, " -1001234567890\u{feff}", "-1001234567890"),
        (Telegram, "@News_Channel", "@news_channel"),
        (Telegram, "@news", no_id),
        (Telegram, "@news-channel", no_id),
        (Telegram, "news_channel", no_id),
        (Telegram, "9223372036854775808", phone),
        (Telegram, "-9223372036854775808", "-9223372036854775808"),
        (Telegram, "0", phone),
        (Telegram, "+34600111222", phone),
        (Telegram, "0034600111222", phone),
        (Telegram, "(34) 600 111 222", phone),
        (Telegram, "1.23E+09", "InvalidChat: what a spreadsheet left of a number, or nothing"),
    ];
    for (provider, chat, wanted) in table {
        assert_eq!(outcome(&rules(provider, None), chat), wanted, "{chat} of {provider:?}");
    }
}

#[test]
fn a_number_of_one_network_is_not_taken_for_one_of_another() {
    let ambiguous =
        "AmbiguousPhoneNumber: a number of US or, if it begins with its country code, of another country";
    let table = [
        // E.164 stays E.164, though it could be a number of the region.
        (WhatsApp, WhatsApp, Some("US"), "6581234567", "6581234567"),
        (Periskope, Twilio, Some("US"), "6581234567", "6581234567"),
        (Http, WhatsApp, Some("US"), "6588123456", ambiguous),
        (Http, WhatsApp, Some("US"), "6581234567", "6581234567"),
        (Http, WhatsApp, Some("US"), "2025550123", "12025550123"),
        (Http, WhatsApp, Some("ES"), "4915112345678", "4915112345678"),
        (Http, WhatsApp, Some("ES"), "600111222", "34600111222"),
        (Http, WhatsApp, None, "34600111222", "34600111222"),
        (Http, WhatsApp, Some("ES"), "123", "InvalidPhoneNumber: too short for ES"),
        (Http, Periskope, None, "34600111222@c.us", "34600111222"),
        (Telegram, WhatsApp, None, "34600111222", "NotAPhoneNumber: an id of Telegram"),
        (
            WhatsApp,
            Telegram,
            None,
            "34600111222",
            "InvalidChat: Telegram needs the chat id, not a phone number",
        ),
        (Http, Telegram, None, "34600111222", "34600111222"),
        (Telegram, Http, None, "-1001234567890", "-1001234567890"),
        (Twilio, Http, Some("US"), "6581234567", "6581234567"),
    ];
    for (from, to, region, chat, wanted) in table {
        let found = rules(to, region).adopt(chat, &rules(from, region));
        let found = found.unwrap_or_else(|problem| problem.to_string());
        assert_eq!(found, wanted, "{chat} from {from:?} to {to:?}");
    }
}

#[test]
fn both_forms_of_a_mexican_mobile_number_are_one_recipient() {
    let rules = rules(WhatsApp, None);
    assert_eq!(rules.identity("5215512345678"), rules.identity("525512345678"));
    assert_ne!(rules.identity("5491123456789"), rules.identity("541123456789"));
    assert_eq!(ChatRules::default().identity("5215512345678"), "5215512345678");
}

/// A number in a usual writing: what stands before it, between its digits, and after it.
fn written(digits: &str, dialled: &str, gaps: &[&str]) -> String {
    let gaps = gaps.iter().cycle();
    let spaced: String = digits.chars().zip(gaps).map(|(digit, gap)| format!("{digit}{gap}")).collect();
    format!("{dialled}{spaced}")
}

fn gaps() -> impl Strategy<Value = Vec<&'static str>> {
    let gap = select(vec!["", "", "", " ", "-", ".", " (", ") ", "\u{a0}", "\u{200b}", "\u{2011}", "/"]);
    prop::collection::vec(gap, 1..8)
}

fn region() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![
        None,
        Some("ES"),
        Some("US"),
        Some("DE"),
        Some("IT"),
        Some("AR"),
        Some("BR"),
        Some("MX"),
        Some("RU"),
        Some("SG"),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_number_has_one_form_in_any_usual_writing(
        digits in "[1-9][0-9]{6,14}", dialled in select(vec!["+", "00", "+ ", "(+", "00 ", "+(00)"]), gaps in gaps(),
        provider in select(PHONES.to_vec()), region in region()
    ) {
        let rules = rules(provider, region);
        let written = written(&digits, dialled, &gaps);
        prop_assume!(!is_spreadsheet_remains(&written));
        prop_assert_eq!(rules.normalise(&written), rules.normalise(&format!("+{digits}")), "{}", written);
    }

    #[test]
    fn a_number_without_country_code_has_one_form_in_any_usual_writing(
        digits in "0?[1-9][0-9]{6,10}", gaps in gaps(), provider in select(PHONES.to_vec()), region in region()
    ) {
        let rules = rules(provider, region);
        let written = written(&digits, "", &gaps);
        prop_assume!(!is_spreadsheet_remains(&written));
        prop_assert_eq!(rules.normalise(&written), rules.normalise(&digits), "{}", written);
    }

    #[test]
    fn the_one_form_is_its_own(
        chat in prop_oneof![
            3 => "(\\+|00|0)?[0-9 ]{5,16}", 1 => "[0-9]{9,12}@[cg]\\.us", 1 => "@[A-Za-z0-9_]{3,10}", 1 => "-[0-9]{5,13}",
            1 => "[A-Za-z0-9+/=]{1,20}", 1 => "\\PC{0,12}"
        ],
        provider in select(ALL.to_vec()), region in region()
    ) {
        let unlocal = rules(provider, None);
        if let Ok(normal) = unlocal.normalise(&chat) {
            prop_assert_eq!(unlocal.normalise(&normal), Ok(normal));
        }
        // Where numbers lack their country code, digits alone do not say whether they have one. Their form is known to have it.
        let local = rules(provider, region);
        if let Ok(normal) = local.normalise(&chat) {
            prop_assert_eq!(local.adopt(&normal, &local), Ok(normal.clone()));
            prop_assert_eq!(unlocal.normalise(&normal), Ok(normal));
        }
    }
}

/// Its own numbers are found again among numbers without a country code, so that a list that was exported can be used.
#[test]
fn the_one_form_of_a_number_of_the_region_is_its_own_in_the_region() {
    let mut other = Vec::new();
    for region in rlibphonenumber::PHONE_NUMBER_UTIL.get_supported_regions() {
        let kind = rlibphonenumber::PhoneNumberType::Mobile;
        let example = rlibphonenumber::PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region, kind);
        let Ok(example) = example else { continue };
        let rules = rules(WhatsApp, Some(&region.to_string()));
        let written = example.format_as(rlibphonenumber::PhoneNumberFormat::E164);
        let normal = rules.normalise(&written).expect("an example");
        if rules.normalise(&normal) != Ok(normal.clone()) {
            other.push((region, normal));
        }
    }
    assert_eq!(other, []);
}
