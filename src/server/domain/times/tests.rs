//! Times in zones with daylight saving time. No test depends on the machine's zone.

use jiff::civil::Time;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};
use proptest::prelude::*;

use super::*;

fn zoned(text: &str) -> Zoned {
    text.parse().expect("a moment with its zone")
}

fn moment(text: &str) -> Timestamp {
    zoned(text).timestamp()
}

fn at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    super::at(text, now).map(|opening| opening.moment.timestamp())
}

/// The end of a window whose opening is on the clock.
fn until(text: &str, opens: &Zoned) -> Result<Timestamp, String> {
    super::until(text, &opens.clone().into())
}

/// A Monday evening.
fn monday() -> Zoned {
    zoned("2026-11-30T21:59:30[Europe/Berlin]")
}

#[test]
fn every_way_to_write_a_time_is_read() {
    for (text, expected) in [
        ("now", "2026-11-30T21:59:30"),
        (" NOW ", "2026-11-30T21:59:30"),
        ("+20s", "2026-11-30T21:59:50"),
        ("+ 20 s", "2026-11-30T21:59:50"),
        ("now + 20 s", "2026-11-30T21:59:50"),
        ("now+2h30m", "2026-12-01T00:29:30"),
        ("22:00", "2026-11-30T22:00:00"),
        ("21:59", "2026-12-01T21:59:00"),
        ("1:00", "2026-12-01T01:00:00"),
        ("today 22:00", "2026-11-30T22:00:00"),
        ("tomorrow 22:00", "2026-12-01T22:00:00"),
        ("Tomorrow  1:00", "2026-12-01T01:00:00"),
        ("2026-12-01 22:00", "2026-12-01T22:00:00"),
        ("2026-12-01T22:00:30", "2026-12-01T22:00:30"),
        ("2026-12-01T22:00:00+01:00", "2026-12-01T22:00:00"),
        ("2026-12-01T21:00:00Z", "2026-12-01T22:00:00"),
        ("2026-12-01 21:00:00z", "2026-12-01T22:00:00"),
    ] {
        assert_eq!(at(text, &monday()), Ok(moment(&format!("{expected}[Europe/Berlin]"))), "{text}");
    }
}

#[test]
fn what_is_no_time_is_refused_with_the_ways_to_write_one() {
    for bad in [
        "",
        "soon",
        "+",
        "now+",
        "+-20s",
        "+5",
        "-20s",
        "25:00",
        "22",
        "22:00 tomorrow",
        "tomorrow",
        "tomorrow x",
        "2026-12-01",
        "2026-13-01 22:00",
        "2026-02-30 22:00",
        "01.12.2026 22:00",
        "t22:00",
        "+20s ago",
    ] {
        let error = at(bad, &monday()).expect_err(bad);
        assert!(error.contains(&format!("'{bad}'")) && error.contains("tomorrow 22:00"), "{bad}: {error}");
    }
    let error = at("+9999999h", &zoned("9999-06-01T00:00[UTC]")).expect_err("beyond the calendar");
    assert!(error.contains("too far ahead"), "{error}");
}

#[test]
fn a_time_in_the_past_is_refused_with_the_current_time_and_zone() {
    for past in ["2026-11-30 21:59", "2025-12-01 22:00", "2026-11-30T20:59:29Z", "today 21:00"] {
        let error = at(past, &monday()).expect_err(past);
        assert!(error.contains("2026-11-30 21:59:30 Europe/Berlin"), "{error}");
    }
}

#[test]
fn an_end_counts_from_the_opening_and_comes_after_it() {
    let opens = monday();
    for (text, expected) in [
        ("06:00", "2026-12-01T06:00:00"),
        ("22:00", "2026-11-30T22:00:00"),
        ("+8h", "2026-12-01T05:59:30"),
        ("tomorrow 22:00", "2026-12-01T22:00:00"),
        ("2026-12-02 06:00", "2026-12-02T06:00:00"),
    ] {
        assert_eq!(until(text, &opens), Ok(moment(&format!("{expected}[Europe/Berlin]"))), "{text}");
    }
    for bad in ["now", "+0s", "2026-11-30 21:59", "2026-11-30T20:59:30Z"] {
        let error = until(bad, &opens).expect_err(bad);
        assert!(error.contains("not after the opening, 2026-11-30 21:59:30 Europe/Berlin"), "{error}");
    }
    assert!(until("soon", &opens).is_err());
}

#[test]
fn people_see_each_time_with_its_offset() {
    let zone = TimeZone::get("Europe/Berlin").expect("a zone");
    let (first, last) =
        (moment("2026-10-25T02:30+02:00[Europe/Berlin]"), moment("2026-10-25T02:30+01:00[Europe/Berlin]"));
    let shown = "Sun 2026-10-25 02:30 +02:00 to Sun 2026-10-25 02:30 +01:00";
    assert_eq!(window(first, last, &zone), shown);
    assert_eq!(second(last, &zone), "Sun 2026-10-25 02:30:00 +01:00");
}

#[test]
fn a_skipped_local_time_means_the_end_of_the_gap() {
    let before = zoned("2026-03-28T22:00[Europe/Berlin]");
    let gap_end = moment("2026-03-29T03:00[Europe/Berlin]");
    for text in ["02:00", "02:30", "2026-03-29 02:30", "tomorrow 02:59", "03:00"] {
        assert_eq!(at(text, &before), Ok(gap_end), "{text}");
        assert_eq!(until(text, &before), Ok(gap_end), "{text}");
    }
    // A whole day that never was: Samoa crossed the date line.
    let samoa = zoned("2011-12-29T12:00[Pacific/Apia]");
    assert_eq!(at("2011-12-30 22:00", &samoa), Ok(moment("2011-12-31T00:00[Pacific/Apia]")));
}

#[test]
fn a_doubled_local_time_means_the_first_that_is_still_to_come() {
    let first = moment("2026-10-25T02:30+02:00[Europe/Berlin]");
    let second = moment("2026-10-25T02:30+01:00[Europe/Berlin]");
    let between = zoned("2026-10-25T02:45+02:00[Europe/Berlin]");
    for text in ["02:30", "2026-10-25 02:30"] {
        assert_eq!(at(text, &zoned("2026-10-25T01:00[Europe/Berlin]")), Ok(first), "{text}");
        assert_eq!(at(text, &between), Ok(second), "{text}");
        assert_eq!(until(text, &between), Ok(second), "{text}");
    }
}

/// The window of a standing job that opens next after this moment.
fn standing(every: &str, closing: &str, after: &Zoned) -> (Timestamp, Timestamp) {
    let every: Every = every.parse().expect("days");
    let opens = every.next(after);
    let closes = closing.parse::<Closing>().expect("a time").of(&every.opening(&opens));
    (opens.timestamp(), closes)
}

/// The window of a job that opens once.
fn single(opens: &str, closes: &str, now: &Zoned) -> Result<(Timestamp, Timestamp), String> {
    let opening = super::at(opens, now)?;
    Ok((opening.moment.timestamp(), super::until(closes, &opening)?))
}

#[test]
fn a_window_that_opens_in_the_skipped_hour_keeps_its_night() {
    let before = zoned("2027-03-27T12:00[Europe/Berlin]");
    let berlin = |time: &str| moment(&format!("2027-03-{time}[Europe/Berlin]"));
    for (opens, closes, expected) in [
        ("02:15", "02:45", "28T03:45"),
        ("02:15", "03:00", "28T04:00"),
        ("02:00", "03:00", "28T04:00"),
        ("02:59", "03:00", "28T04:00"),
        ("02:15", "03:10", "28T03:10"),
        ("02:15", "06:00", "28T06:00"),
        ("02:30", "02:15", "29T02:15"),
        ("02:00", "02:00", "29T02:00"),
        // These were not skipped.
        ("03:00", "03:00", "29T03:00"),
        ("03:00", "02:30", "29T02:30"),
        ("03:00", "02:00", "29T02:00"),
    ] {
        let expected = (berlin("28T03:00"), berlin(expected));
        assert_eq!(standing(&format!("daily {opens}"), closes, &before), expected, "{opens} {closes}");
        for opens in [opens.to_string(), format!("2027-03-28 {opens}"), format!("tomorrow {opens}")] {
            assert_eq!(single(&opens, closes, &before), Ok(expected), "{opens} {closes}");
        }
    }
    let dated = single("2027-03-28 02:10", "2027-03-28 03:00", &before);
    assert_eq!(dated, Ok((berlin("28T03:00"), berlin("28T04:00"))));
    assert!(single("2027-03-28 02:30", "2027-03-28 02:10", &before).is_err(), "it ends before it opens");
    assert!(single("2027-03-28 03:00", "2027-03-28 03:00", &before).is_err());
    // The window before keeps its end, and so does one that opens after the gap.
    assert_eq!(single("01:30", "02:30", &before), Ok((berlin("28T01:30"), berlin("28T03:00"))));
    assert_eq!(single("2027-03-28 03:10", "02:45", &before), Ok((berlin("28T03:10"), berlin("29T02:45"))));
}

#[test]
fn a_window_in_the_doubled_hour_closes_at_the_first_of_its_ends() {
    let before = zoned("2027-10-30T12:00[Europe/Berlin]");
    let berlin = |time: &str| moment(&format!("2027-10-31T{time}[Europe/Berlin]"));
    for (opens, closes, from, to) in [
        ("02:15", "03:00", "02:15+02:00", "03:00+01:00"),
        ("02:15", "02:45", "02:15+02:00", "02:45+02:00"),
        ("01:30", "02:30", "01:30+02:00", "02:30+02:00"),
        ("02:45", "02:15", "02:45+02:00", "02:15+01:00"),
    ] {
        let expected = (berlin(from), berlin(to));
        assert_eq!(standing(&format!("daily {opens}"), closes, &before), expected, "{opens} {closes}");
        assert_eq!(single(&format!("2027-10-31 {opens}"), closes, &before), Ok(expected), "{opens} {closes}");
    }
}

#[test]
fn a_standing_job_opens_on_its_days() {
    let next = |text: &str, after: &Zoned| text.parse::<Every>().expect(text).next(after);
    let berlin = |text: &str| zoned(&format!("{text}[Europe/Berlin]"));
    assert_eq!(next("mon-fri 22:00", &monday()), berlin("2026-11-30T22:00"));
    assert_eq!(next("mon-fri 22:00", &berlin("2026-11-30T22:00")), berlin("2026-12-01T22:00"));
    assert_eq!(next("mon-fri 22:00", &berlin("2026-12-04T22:00")), berlin("2026-12-07T22:00"));
    assert_eq!(next("sat,sun 03:30", &monday()), berlin("2026-12-05T03:30"));
    assert_eq!(next("fri-mon 1:00", &berlin("2026-12-01T00:00")), berlin("2026-12-04T01:00"));
    assert_eq!(next("tue 21:59", &monday()), berlin("2026-12-01T21:59"));
    let end = zoned("9999-12-30T21:00[UTC]");
    assert_eq!(next("tue 22:00", &end), end, "the calendar ends");
}

#[test]
fn a_doubled_opening_comes_once() {
    let every: Every = "daily 02:30".parse().expect("days");
    let first = every.next(&zoned("2026-10-24T12:00[Europe/Berlin]"));
    assert_eq!(first, zoned("2026-10-25T02:30+02:00[Europe/Berlin]"));
    assert_eq!(every.next(&first), zoned("2026-10-26T02:30[Europe/Berlin]"));
}

#[test]
fn days_and_ends_are_shown_in_their_shortest_form() {
    for (text, shown) in [
        ("mon-fri 22:00", "mon-fri 22:00"),
        ("Daily 1:00", "daily 01:00"),
        ("mon-sun 22:00:30", "daily 22:00:30"),
        ("fri-mon 1:00", "fri-mon 01:00"),
        ("sun, sat 03:30", "sat,sun 03:30"),
        ("monday,wed 03:30", "mon,wed 03:30"),
        ("mon,tue,wed,sun 03:30", "sun-wed 03:30"),
        ("sun-mon 03:30", "sun,mon 03:30"),
        ("tue-tue 03:30", "tue 03:30"),
    ] {
        assert_eq!(text.parse::<Every>().expect(text).to_string(), shown);
    }
    for (text, shown) in [("6:00", "06:00"), ("+8h", "+8h"), ("+ 2 h 30 min", "+2h 30m")] {
        assert_eq!(text.parse::<Closing>().expect(text).to_string(), shown);
    }
}

#[test]
fn what_is_no_opening_or_no_end_is_said() {
    for bad in
        ["", "22:00", "daily", "mon-fri", "mon- 22:00", ", 22:00", "mo 22:00", "daily,mon 22:00", "mon 24:00"]
    {
        let error = bad.parse::<Every>().expect_err(bad);
        assert!(error.contains("'mon-fri 22:00'"), "{error}");
    }
    for bad in ["", "8h", "+", "+0s", "+-8h", "24:00", "tomorrow 06:00", "now"] {
        assert!(bad.parse::<Closing>().is_err(), "{bad}");
    }
}

#[test]
fn openings_and_ends_are_strings_in_json() {
    let every: Every = "sat,sun 03:30".parse().expect("days");
    let closing: Closing = "+8h".parse().expect("a duration");
    let json = serde_json::to_string(&(every, closing)).expect("JSON");
    assert_eq!(json, r#"["sat,sun 03:30","+8h"]"#);
    assert_eq!(serde_json::from_str::<(Every, Closing)>(&json).expect("the same"), (every, closing));
    assert!(serde_json::from_str::<Closing>(r#""+0s""#).is_err());
}

/// Zones that change at night, at midnight, by half an hour, by a day, and never.
const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "Africa/Cairo",
    "America/Nuuk",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kolkata",
];

fn zones() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(&ZONES[..]).prop_map(|name| TimeZone::get(name).expect(name))
}

fn times() -> impl Strategy<Value = Time> {
    (0i8..24, 0i8..60, prop_oneof![3 => Just(0i8), 1 => 0i8..60])
        .prop_map(|(hour, minute, second)| Time::new(hour, minute, second, 0).expect("in range"))
}

/// Moments from 2010 to 2030, every second one within two days of a change of the zone's offset.
fn moments() -> impl Strategy<Value = Zoned> {
    (zones(), any::<bool>(), 1_262_304_000i64..1_893_456_000, -172_800i64..172_800).prop_map(
        |(zone, near, second, off)| {
            let moment = Timestamp::from_second(second).expect("in range");
            let change = zone.following(moment).next().filter(|_| near);
            let moment = change.map_or(moment, |change| {
                Timestamp::from_second(change.timestamp().as_second() + off).expect("in range")
            });
            moment.to_zoned(zone)
        },
    )
}

fn openings() -> impl Strategy<Value = Every> {
    (1u8..128, times()).prop_map(|(days, time)| {
        let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let days: Vec<&str> = (0..7).filter(|day| days >> day & 1 == 1).map(|day| names[day]).collect();
        format!("{} {}", days.join(","), words::show_clock(time)).parse().expect("days and a time")
    })
}

fn closings() -> impl Strategy<Value = Closing> {
    let after = (1i64..10_000_000_000, 0i32..1_000_000_000)
        .prop_map(|(seconds, nanos)| Closing::After(SignedDuration::new(seconds, nanos)));
    prop_oneof![times().prop_map(Closing::Clock), after]
}

fn local_exists(local: DateTime, zone: &TimeZone) -> bool {
    !matches!(zone.to_ambiguous_timestamp(local).offset(), AmbiguousOffset::Gap { .. })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Each opening is later than the one before. It has the local time and the day of the week that were
    /// written, or is the end of a gap that holds them. None is left out.
    #[test]
    fn openings_follow_each_other_on_the_right_days_at_the_right_times(
        every in openings(),
        from in moments(),
    ) {
        let text = every.to_string();
        let (_, time) = text.rsplit_once(' ').expect("days and a time");
        let time = words::clock(time).expect("a time");
        let mut last = from;
        for _ in 0..8 {
            let next = every.next(&last);
            prop_assert!(next > last);
            let zone = next.time_zone().clone();
            // The days between the two openings.
            let mut day = last.date();
            let mut due = Vec::new();
            while day <= next.date() {
                let local = day.to_datetime(time);
                if every.falls_on(day) && local_exists(local, &zone) {
                    let moment = zone.to_ambiguous_zoned(local).earlier().expect("it exists");
                    if moment > last && moment <= next {
                        due.push(moment);
                    }
                }
                day = day.tomorrow().expect("in range");
            }
            if next.time() == time {
                prop_assert!(every.falls_on(next.date()));
                prop_assert_eq!(due, vec![next.clone()]);
            } else {
                prop_assert!(due.is_empty());
                let just_before = next.timestamp().checked_sub(Span::new().nanoseconds(1)).expect("in range");
                let before = just_before.to_zoned(zone);
                prop_assert!(before.offset() < next.offset(), "only a gap moves an opening");
            }
            last = next;
        }
    }

    /// A window by the clock ends after it opens, and before the next opening if it ends on another time of
    /// day. Samoa once skipped a whole day.
    #[test]
    fn no_window_of_a_standing_job_is_empty_or_reaches_the_next_one(
        every in openings(),
        closing in closings(),
        from in moments(),
    ) {
        let opens = every.next(&from);
        let opening = every.opening(&opens);
        let closes = closing.of(&opening);
        prop_assert!(closes > opens.timestamp());
        prop_assert!(closing.of(&from.clone().into()) > from.timestamp());
        if let Closing::Clock(time) = closing {
            let long = closes.duration_since(opens.timestamp());
            prop_assert!(long <= SignedDuration::from_hours(49), "{long:?}");
            prop_assert_eq!(super::until(&closing.to_string(), &opening), Ok(closes));
            let next = every.next(&opens).timestamp();
            let whole_day = opens.time_zone().iana_name() == Some("Pacific/Apia");
            let daily = whole_day || time == opening.written.time();
            prop_assert!(closes <= next || daily, "{opens} {closes} {next}");
        }
    }

    #[test]
    fn an_opening_is_never_past_and_an_end_never_before_its_opening(time in times(), from in moments()) {
        let clock = words::show_clock(time);
        let tomorrow = format!("tomorrow {clock}");
        let dated = format!("{} {clock}", from.date());
        for text in [&clock, &tomorrow, &dated] {
            if let Ok(opens) = at(text, &from) {
                prop_assert!(opens >= from.timestamp());
                let opens = opens.to_zoned(from.time_zone().clone());
                prop_assert!(until(text, &opens).is_ok_and(|end| end > opens.timestamp()) || *text != clock);
            }
        }
        prop_assert!(at(&clock, &from).is_ok());
    }

    /// A later local time never means an earlier moment.
    #[test]
    fn local_times_keep_their_order(a in moments(), seconds in 0i64..200_000) {
        let later = a.datetime().checked_add(Span::new().seconds(seconds)).expect("in range");
        let of = |local| Moments::of(local, a.time_zone()).expect("in range").first();
        prop_assert!(of(a.datetime()) <= of(later));
    }

    #[test]
    fn what_is_shown_is_read_as_the_same(every in openings(), closing in closings()) {
        prop_assert_eq!(every.to_string().parse(), Ok(every));
        prop_assert_eq!(closing.to_string().parse(), Ok(closing));
    }

    #[test]
    fn no_text_panics(
        text in "\\PC{0,30}",
        start in "(now|tomorrow|daily|mon-|\\+|2026-12-01|22:)?",
        from in moments(),
    ) {
        for text in [format!("{start}{text}"), format!("{start} {text}")] {
            let _ = at(&text, &from);
            let _ = until(&text, &from);
            let _ = text.parse::<Every>().map(|every| every.next(&from));
            let _ = text.parse::<Closing>().map(|closing| closing.of(&from.clone().into()));
        }
    }

    #[test]
    fn no_moment_panics(
        every in openings(),
        closing in closings(),
        second in -377_705_023_201i64..253_402_207_200,
        zone in zones(),
    ) {
        let from = Timestamp::from_second(second).expect("in range").to_zoned(zone);
        prop_assert!(every.next(&from) >= from);
        prop_assert!(closing.of(&from.clone().into()) >= from.timestamp());
        let _ = (at("tomorrow 22:00", &from), until("22:00", &from), at("+9999999h", &from));
    }
}
