//! The texts beside the crates against the code: a setting that is named with its default has that name and that default.
//! (Their programs are compiled with the documentation's tests.)

use madang::Settings;

const PORTING: &str = include_str!("../../../docs/porting.ko.md");

/// Settings as a file would have them.
fn table(settings: &Settings) -> toml::Table {
    toml::Table::try_from(settings).expect("settings are written as they are read")
}

/// A value as the tables write it: `5000`, `1 MiB`, `true`, `` `kick` ``; `None` for words.
fn value(text: &str) -> Option<toml::Value> {
    let text = text.trim();
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    let name = text.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
    let number = || Some(toml::Value::Integer(number.parse::<i64>().ok()? << shift));
    let flag = || text.parse().ok().map(toml::Value::Boolean);
    number().or_else(flag).or_else(|| name.map(|name| toml::Value::String(name.to_owned())))
}

#[test]
fn o1_each_default_in_the_tables_is_true() {
    let (all, players) = (table(&Settings::default()), table(&Settings::for_players()));
    let mut compared = 0;
    for row in PORTING.lines().filter(|line| line.starts_with('|')) {
        // `key` (default, …`Settings::for_players`는 default)
        for (at, _) in row.match_indices("` (") {
            let Some((_, key)) = row[..at].rsplit_once('`') else { continue };
            let Some((inside, _)) = row[at + 3..].split_once(')') else { panic!("no end: {row}") };
            let mut parts = inside.split(',');
            let Some(told) = value(parts.next().unwrap_or_default()) else { continue };
            let Some(default) = all.get(key) else {
                // The file has no line for what is left to the kind of server.
                assert!(key.starts_with("prefix_") || key == "accept_rate_max", "no setting `{key}`: {row}");
                continue;
            };
            assert_eq!(&told, default, "`{key}`: {row}");
            compared += 1;
            for told in parts.filter_map(|part| part.split_once("`Settings::for_players`는 ")) {
                assert_eq!(value(told.1).as_ref(), Some(&players[key]), "`{key}` for players: {row}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 30, "only {compared} defaults were found: the tables look different now");
}
