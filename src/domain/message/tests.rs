use super::*;
use crate::api::{Media, MediaKind, MessageTemplateRef};

fn parse(text: &str) -> Result<MessageTemplate, MessageError> {
    let message = MessageContent { text: Some(text.into()), ..MessageContent::default() };
    MessageTemplate::parse(&message, MAX_TEXT)
}

fn recipient(params: &[(&str, &str)]) -> Recipient {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Recipient { chat: "15550100".into(), skip: String::new(), params }
}

#[test]
fn parameters_are_put_into_the_text() {
    let message = parse("Hi {{ name }}, <b>now</b>").expect("valid");
    assert_eq!(
        message.render(0, &recipient(&[("name", "Ana & Co")]).params).expect("text").text,
        "Hi Ana & Co, <b>now</b>"
    );
}

/// Names, rows and the first row of a missing parameter.
fn missing(error: &MessageError) -> (Vec<&str>, usize, usize) {
    match error {
        MessageError::MissingParameter { missing, rows, first_row } => {
            (missing.names().collect(), *rows, *first_row)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_parameter_names_itself_the_rows_and_the_cure() {
    let message = parse("Hi {{ name }}").expect("valid");
    let rows = [recipient(&[("name", "Ana")]), recipient(&[]), recipient(&[])];
    let error = message.check(&rows.iter()).expect_err("two rows have no name");
    assert_eq!(missing(&error), (vec!["name"], 2, 2));
    assert!(error.to_string().contains("{{ name | default(\"…\") }}"), "{error}");
}

#[test]
fn all_parameters_that_are_missing_are_named_and_who_lacks_any_of_them_is_counted() {
    let has = |names: &[&str]| recipient(&names.iter().map(|name| (*name, "a")).collect::<Vec<_>>());
    let rows = [has(&["name", "code"]), has(&["name"]), has(&["code"]), has(&["name"]), has(&[])];
    let skipped = Recipient { skip: "Duplicate".into(), ..has(&[]) };
    for (text, expected) in [
        ("{{ name }}, {{ code }}", (vec!["code", "name"], 4, 2)),
        ("{{ name }}", (vec!["name"], 2, 3)),
        ("{{ age | default('') }}{{ name }}", (vec!["name"], 2, 3)),
        ("{% for i in range(2) %}{{ name }}{% endfor %}", (vec!["name"], 2, 3)),
        ("{{ name }}{% if sex is defined %}{{ sex }}{% endif %}", (vec!["name"], 2, 3)),
    ] {
        let error = parse(text).expect("valid").check(&rows.iter().chain([&skipped])).expect_err("missing");
        assert_eq!(missing(&error), expected, "{text}");
    }
}

#[test]
fn of_many_missing_parameters_the_first_ones_are_named() {
    let text: String = (1..=9).map(|number| format!("{{{{ p{number} }}}}")).collect();
    let error = parse(&text).expect("valid").check(&[recipient(&[])].iter()).expect_err("none of them");
    let said = error.to_string();
    assert!(said.contains("{{ p1 }} in message.text, "), "{said}");
    assert!(said.contains("{{ p5 }} in message.text and 4 more. Add"), "{said}");
    let long = format!("{{{{ {} }}}}", "x".repeat(4000));
    let error = parse(&long).expect("valid").check(&[recipient(&[])].iter()).expect_err("missing");
    assert!(error.to_string().len() < 400, "{error}");
}

#[test]
fn what_is_no_parameter_and_not_defined_is_no_missing_one() {
    let message = parse("Hi {{ name.first }}").expect("valid");
    let error = message.check(&[recipient(&[("name", "Ana")])].iter()).expect_err("a text has no parts");
    let said = "message.text for the recipient in row 1 uses something that is not defined";
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_default_takes_the_place_of_a_missing_parameter() {
    let message = parse("Hi {{ name | default('you') }}").expect("valid");
    assert_eq!(message.check(&[recipient(&[])].iter()), Ok(()));
}

#[test]
fn a_syntax_error_is_found_before_anything_is_sent() {
    let error = parse("Hi {{ name").expect_err("unclosed");
    assert_eq!(error.category(), "InvalidTemplate");
}

#[test]
fn an_empty_or_endless_text_is_refused() {
    let empty = parse("{% if false %}x{% endif %}").expect("valid");
    assert_eq!(empty.check(&[recipient(&[])].iter()).expect_err("empty").category(), "InvalidText");
    let long = parse("{{ 'x' * 9999 }}").expect("valid");
    assert_eq!(long.check(&[recipient(&[])].iter()).expect_err("long").category(), "InvalidText");
}

#[test]
fn a_template_that_works_without_end_is_stopped() {
    let loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x";
    let doubled = format!(
        "{}{{{{ text|length }}}}",
        "{% set text = (text|default('x')) ~ (text|default('x')) %}".repeat(60)
    );
    let listed = "{{ range(99999)|list|join('a long separator')|length }}";
    for text in [loops, &doubled, listed, "{{ ('x' * 9999999)|length }}"] {
        let message = parse(text).expect("valid");
        let error = message.check(&[recipient(&[])].iter()).expect_err("too much");
        assert_eq!(error, MessageError::TooMuchWork { part: TEXT.into(), row: 1 }, "{text}");
        assert_eq!(error.category(), "TemplateTooComplex");
    }
}

#[test]
fn a_text_is_refused_as_soon_as_it_is_too_long() {
    let message = parse("{% for i in range(2000) %}0123456789{% endfor %}").expect("valid");
    let error = message.render(4, &BTreeMap::new()).expect_err("20,000 characters");
    assert_eq!(error.to_string(), "message.text for the recipient in row 5 has more than 4096 characters");
}

#[test]
fn a_text_of_the_greatest_length_is_made_whatever_its_letters() {
    let message = parse("{{ '😀' * 4096 }}").expect("valid");
    assert_eq!(message.render(0, &BTreeMap::new()).map(|content| content.text.chars().count()), Ok(MAX_TEXT));
}

#[test]
fn skipped_rows_need_no_parameters() {
    let message = parse("Hi {{ name }}").expect("valid");
    let skipped = Recipient { skip: "Duplicate".into(), ..recipient(&[]) };
    assert_eq!(message.check(&[skipped].iter()), Ok(()));
}

fn whole() -> MessageContent {
    let map = |entries: &[(&str, &str)]| {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    MessageContent {
        template: Some(MessageTemplateRef {
            name: "promo".into(),
            language: Some("en_US".into()),
            parameters: map(&[("1", "{{ name }}"), ("2", "tomorrow")]),
            button_parameters: map(&[("0", "{{ code }}")]),
        }),
        media: Some(Media {
            kind: MediaKind::Document,
            url: "https://cdn.example/{{ code }}.pdf".into(),
            file_name: Some("{{ name }}.pdf".into()),
        }),
        ..MessageContent::default()
    }
}

#[test]
fn parameters_are_put_into_every_part() {
    let message = MessageTemplate::parse(&whole(), MAX_TEXT).expect("valid");
    let content = message.render(0, &recipient(&[("name", "Ana"), ("code", "x7")]).params).expect("made");
    let template = content.template.expect("a template");
    assert_eq!(template.parameters["1"], "Ana");
    assert_eq!(template.parameters["2"], "tomorrow");
    assert_eq!(template.buttons[&0], "x7");
    let media = content.media.expect("media");
    assert_eq!((media.url.as_str(), media.file_name.as_str()), ("https://cdn.example/x7.pdf", "Ana.pdf"));
}

#[test]
fn a_missing_parameter_names_the_part_that_uses_it() {
    let message = MessageTemplate::parse(&whole(), MAX_TEXT).expect("valid");
    let error = message.check(&[recipient(&[("name", "Ana")])].iter()).expect_err("no code");
    let text = error.to_string();
    assert!(text.contains("{{ code }} in message.media.url"), "{text}");
}

#[test]
fn parameters_are_escaped_as_the_markup_of_the_text_wants_it() {
    let cases = [
        (TextFormat::Plain, "<b>{{ name }}</b>", "<b>A*n_a <3 & Co.</b>"),
        (TextFormat::Html, "<b>{{ name }}</b>", "<b>A*n_a &lt;3 &amp; Co.</b>"),
        (TextFormat::MarkdownV2, "*{{ name }}*", "*A\\*n\\_a <3 & Co\\.*"),
    ];
    for (format, text, expected) in cases {
        let message = MessageContent { text: Some(text.into()), format, ..MessageContent::default() };
        let message = MessageTemplate::parse(&message, MAX_TEXT).expect("valid");
        let content = message.render(0, &recipient(&[("name", "A*n_a <3 & Co.")]).params).expect("made");
        assert_eq!(content.text, expected);
    }
}

#[test]
fn a_text_may_have_as_many_characters_as_the_channel_takes() {
    let message = MessageContent { text: Some("12345".into()), ..MessageContent::default() };
    let checked = |max| MessageTemplate::parse(&message, max).expect("valid").check(&[recipient(&[])].iter());
    assert_eq!(checked(5), Ok(()));
    assert_eq!(checked(4).expect_err("too long").category(), "InvalidText");
}

#[test]
fn media_are_the_recipients_own_where_their_link_has_parameters() {
    let own = |url: &str| {
        let media = Media { kind: MediaKind::Image, url: url.into(), file_name: None };
        let text = Some("Hi {{ name }}".into());
        let message = MessageContent { text, media: Some(media), ..MessageContent::default() };
        MessageTemplate::parse(&message, MAX_TEXT).expect("valid").has_own_media()
    };
    assert!(own("https://cdn.example/{{ name }}.png"));
    assert!(!own("https://cdn.example/all.png"));
    assert!(!parse("Hi {{ name }}").expect("valid").has_own_media());
    // A link can be a parameter of a template, but not beside media.
    for (value, media, is_own) in
        [("{{ name }}", false, true), ("Ana", false, false), ("{{ name }}", true, false)]
    {
        let template = MessageTemplateRef {
            name: "HX1".into(),
            language: None,
            parameters: BTreeMap::from([("1".into(), value.into())]),
            button_parameters: BTreeMap::new(),
        };
        let picture =
            Media { kind: MediaKind::Image, url: "https://cdn.example/all.png".into(), file_name: None };
        let media = media.then_some(picture);
        let message = MessageContent { template: Some(template), media, ..MessageContent::default() };
        let message = MessageTemplate::parse(&message, MAX_TEXT).expect("valid");
        assert_eq!(message.has_own_media(), is_own, "{value}");
    }
}
