//! Phone numbers: any usual writing of one becomes its E.164 digits without `+`.
//!
//! A number passes when it is possible: its country code exists, and it has as many digits as numbers of that country have. That
//! it is valid, so that its first digits are given out, is not asked for: number plans grow faster than software is updated, and
//! a number of a new range is somebody's.

use std::borrow::Cow;

use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, ParseError, PhoneNumber, PhoneNumberFormat, PhoneNumberType, Region,
    ValidationError,
};

use super::super::text::is_invisible;
use super::ChatProblem;

/// Mobile numbers of Mexico had a 1 after the country code until 2019, and those who were on `WhatsApp` then have it there still.
const MEXICO_OLD: &str = "521";
/// All digits of such a number.
const MEXICO_OLD_DIGITS: usize = 13;
/// Most prefixes that a number may have too many: it has 17 digits at most, and one digit of a prefix at least.
const MAX_PREFIXES: usize = 20;

/// A phone number as people write it. `region` is that of numbers without a country code; without one, the digits begin with the
/// country code whether they have a `+` or `00` in front or not.
pub(super) fn normalise(chat: &str, region: Option<&str>) -> Result<String, ChatProblem> {
    if !is_written_as_phone(chat) {
        return Err(ChatProblem::new(
            "NotAPhoneNumber",
            "a phone number has digits, spaces and +-()./ alone",
        ));
    }
    let digits: String = chat.chars().filter(char::is_ascii_digit).collect();
    match region {
        Some(region) if !chat.contains('+') && !digits.starts_with("00") => national(&digits, region),
        _ => international(&digits),
    }
}

/// Digits that begin with their country code.
pub(super) fn international(digits: &str) -> Result<String, ChatProblem> {
    let digits = digits.trim_start_matches("00");
    match is_old_mexican(digits) {
        true => Ok(digits.to_owned()),
        false => settled(parse(&format!("+{digits}"), None)?),
    }
}

/// Digits of which it is not known whether they have a country code. Taken when only one reading makes a number, or only one a
/// valid one.
pub(super) fn of_either_reading(digits: &str, region: Option<&str>) -> Result<String, ChatProblem> {
    let Some(region) = region else { return international(digits) };
    let (home, abroad) = match (national(digits, region), international(digits)) {
        (Ok(home), Ok(abroad)) if home != abroad => (home, abroad),
        (Err(_), Ok(abroad)) => return Ok(abroad),
        (home, _) => return home,
    };
    let is_valid = |number: &str| use_of(number) >= Use::Valid;
    match (is_valid(&home), is_valid(&abroad)) {
        (true, false) => Ok(home),
        (false, true) => Ok(abroad),
        _ => Err(ChatProblem::new(
            "AmbiguousPhoneNumber",
            format!("a number of {region} or, if it begins with its country code, of another country"),
        )),
    }
}

/// What both forms of a mobile number of Mexico have in common; any other number itself.
pub(super) fn identity(digits: &str) -> Cow<'_, str> {
    match is_old_mexican(digits) {
        true => format!("52{}", &digits[MEXICO_OLD.len()..]).into(),
        false => digits.into(),
    }
}

/// What all numbers have in common that `WhatsApp` may tell for one phone: Mexico's old `1`, Argentina's `9` and the ninth digit of
/// Brazil come and go. Wider than [`identity`]: that somebody is not sent to by mistake is the lesser harm here.
pub(in crate::domain) fn phone_of(digits: &str) -> Cow<'_, str> {
    if let Some(number) = digits.strip_prefix("549").filter(|number| number.len() == 10) {
        return format!("54{number}").into();
    }
    // Fixed lines of Brazil begin with 2 to 5.
    let is_mobile = |number: &&str| number.len() == 8 && number.starts_with(['6', '7', '8', '9']);
    match digits.strip_prefix("55").and_then(|rest| rest.split_at_checked(2)) {
        Some((area, number)) if number.strip_prefix('9').as_ref().is_some_and(is_mobile) => {
            format!("55{area}{}", &number[1..]).into()
        }
        _ => identity(digits),
    }
}

/// Whether a text has the characters of a phone number, and no others.
pub(super) fn is_written_as_phone(chat: &str) -> bool {
    let Some(first) = chat.find(|c: char| c.is_ascii_digit()) else { return false };
    let (dialled, number) = chat.split_at(first);
    // A number below zero is an id of something.
    !chat.starts_with('-')
        && dialled.chars().all(|c| c == '+' || is_separator(c))
        && number.chars().all(|c| c.is_ascii_digit() || is_separator(c))
}

/// Whether a character stands between the digits of phone numbers.
pub(in crate::domain) fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || is_invisible(c)
        || "-()./".contains(c)
        || matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// The country that two letters stand for, with the code that its numbers begin with. `None`: they stand for none.
pub(super) fn country(region: &str) -> Option<(Region, i32)> {
    let known: Region = region.parse().ok()?;
    Some((known, PHONE_NUMBER_UTIL.get_country_code_for_region(known)?))
}

fn is_old_mexican(digits: &str) -> bool {
    digits.len() == MEXICO_OLD_DIGITS && digits.starts_with(MEXICO_OLD)
}

fn national(digits: &str, region: &str) -> Result<String, ChatProblem> {
    let Some((known, code)) = country(region) else {
        return Err(invalid(format!("defaultRegion {region} of the channel is no country")));
    };
    if known == Region::MX && is_old_mexican(digits) {
        return Ok(digits.to_owned());
    }
    let home = parse(digits, Some(known)).and_then(settled);
    // The country's own code may stand there without a `+`, and look like the first digits of a long number: `4915112345678` is
    // a mobile number, and would be one of a village as well.
    let with_code = match digits.starts_with(&code.to_string()) {
        true => international(digits).ok(),
        false => None,
    };
    let use_of = |number: Option<&String>| number.map_or(Use::Impossible, |number| use_of(number));
    match with_code {
        Some(with_code) if use_of(Some(&with_code)) > use_of(home.as_ref().ok()) => Ok(with_code),
        _ => home,
    }
}

/// What a number is good for, from nothing upwards.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Impossible,
    /// Of the right length; nobody is known to have such numbers.
    Possible,
    /// The number plan has given it out.
    Valid,
    /// And it can be that of a mobile phone.
    Mobile,
}

fn use_of(digits: &str) -> Use {
    let Ok(number) = PHONE_NUMBER_UTIL.parse(format!("+{digits}"), None) else { return Use::Impossible };
    match number.get_type() {
        PhoneNumberType::Mobile | PhoneNumberType::FixedLineOrMobile => Use::Mobile,
        PhoneNumberType::Unknown => Use::Possible,
        _ => Use::Valid,
    }
}

fn parse(text: &str, region: Option<Region>) -> Result<String, ChatProblem> {
    let parsed = PHONE_NUMBER_UTIL.parse(text, region);
    let place = || match (region, &parsed) {
        (Some(region), _) => format!(" for {region}"),
        (None, Ok(number)) => format!(" for {}", country_of(number)),
        (None, Err(_)) => String::new(),
    };
    let wrong = |what: &str| invalid(format!("{what}{}", place()));
    let number = match &parsed {
        Ok(number) => number,
        Err(ParseError::InvalidCountryCode) => {
            let problem = "it begins with the code of no country: add the right one; for numbers without `+` and code, give the channel its defaultRegion";
            return Err(invalid(problem.into()));
        }
        Err(ParseError::TooLongNsn) => return Err(wrong("too long")),
        Err(ParseError::TooShortNsn | ParseError::TooShortAfterIdd | ParseError::NotANumber(_)) => {
            return Err(wrong("too short"));
        }
    };
    match PHONE_NUMBER_UTIL.is_possible_number_with_reason(number) {
        Ok(NumberLengthType::IsPossible) => Ok(digits_of(number)),
        // Only neighbours could dial it.
        Ok(NumberLengthType::IsPossibleLocalOnly) | Err(ValidationError::TooShort) => Err(wrong("too short")),
        Err(ValidationError::TooLong) => Err(wrong("too long")),
        Err(ValidationError::InvalidLength) => Err(wrong("not a length")),
        Err(ValidationError::InvalidCountryCode) => Err(invalid("no such country code".into())),
    }
}

/// The form of the form, and so on: the prefix for calls within a country is dropped however often it stands there.
fn settled(mut digits: String) -> Result<String, ChatProblem> {
    for _ in 0..MAX_PREFIXES {
        let again = parse(&format!("+{digits}"), None)?;
        if again == digits {
            return Ok(digits);
        }
        digits = again;
    }
    Err(invalid("too many prefixes".into()))
}

fn digits_of(number: &PhoneNumber) -> String {
    PHONE_NUMBER_UTIL.format(number, PhoneNumberFormat::E164).trim_start_matches('+').to_owned()
}

/// The country of a number: its region, or its code where there are several or none.
fn country_of(number: &PhoneNumber) -> String {
    let code = number.country_code;
    let mut regions = PHONE_NUMBER_UTIL.get_regions_for_country_calling_code(code).into_iter().flatten();
    match (regions.next(), regions.next()) {
        (Some(region), None) => region.to_string(),
        _ => format!("+{code}"),
    }
}

fn invalid(text: String) -> ChatProblem {
    ChatProblem::new("InvalidPhoneNumber", text)
}
