//! Names of classes that are nearly the same.

/// How alike two names must be (Jaro–Winkler, 0…1) for one to be suggested for the other.
const ALIKE: f64 = 0.85;

/// Lower case, without spaces, hyphens and underscores, and without a plural's s.
pub fn plain(name: &str) -> String {
    let letters: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    match letters.strip_suffix('s') {
        Some(singular) if singular.chars().count() > 2 && !singular.ends_with('s') => singular.to_owned(),
        _ => letters,
    }
}

/// The one of `known` that was probably meant by `name`.
pub fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let plain_name = plain(name);
    let score = |other: &&'a String| {
        let other = plain(other);
        if other == plain_name {
            1.0
        } else {
            strsim::jaro_winkler(&plain_name, &other)
        }
    };
    let best = known.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(&best) >= ALIKE).then_some(best.as_str())
}

/// `; did you mean "car"?`, or nothing.
pub fn did_you_mean(name: &str, known: &[String]) -> String {
    nearest(name, known).map_or(String::new(), |near| format!("; did you mean {near:?}?"))
}

/// The first name that stands twice in a list.
pub fn doubled(names: &[String]) -> Option<&String> {
    names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_distant_ones_are_not() {
        let known = ["person", "two-wheeler", "car", "bus", "truck", "road", "sky"].map(String::from);
        for (name, near) in [
            ("Car", Some("car")),
            ("cars", Some("car")),
            ("Two_Wheeler", Some("two-wheeler")),
            ("trukc", Some("truck")),
            ("persons", Some("person")),
            ("Roads", Some("road")),
            ("bicycle", None),
            ("forklift", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), near, "{name}");
        }
    }
}
