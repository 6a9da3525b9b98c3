//! Templates of paths, such as `/tasks/{id}/run`.

/// A template, with its parameters' names left out: two that match the same are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Template(pub(crate) Vec<Segment>);

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Literal(String),
    /// The texts before, between and behind its parameters, at least two; each parameter stands for at least a
    /// character.
    Pattern(Vec<String>),
}

/// Why a template cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateProblem {
    #[error("a path must begin with `/`")]
    NoSlash,
    #[error("its braces do not match: write parameters as `{{name}}`")]
    Braces,
    #[error("a path has neither `?` nor `#`: leave out the query")]
    Query,
}

impl Template {
    pub(crate) fn parse(path: &str) -> Result<Self, TemplateProblem> {
        let path = path.strip_prefix('/').ok_or(TemplateProblem::NoSlash)?;
        path.split('/').map(Segment::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, TemplateProblem> {
        let mut texts = Vec::new();
        let mut rest = text;
        while let Some((before, parameter)) = rest.split_once('{') {
            let (name, after) = parameter.split_once('}').ok_or(TemplateProblem::Braces)?;
            if name.is_empty() || name.contains('{') {
                return Err(TemplateProblem::Braces);
            }
            texts.push(literal(before)?);
            rest = after;
        }
        let last = literal(rest)?;
        if texts.is_empty() {
            return Ok(Self::Literal(last));
        }
        texts.push(last);
        Ok(Self::Pattern(texts))
    }

    /// How much text it has: the more, the less it leaves open.
    pub(crate) fn text_len(&self) -> usize {
        match self {
            Self::Literal(_) => usize::MAX,
            Self::Pattern(texts) => texts.iter().map(String::len).sum(),
        }
    }

    pub(crate) fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Literal(text) => text == segment,
            Self::Pattern(texts) => matches(texts, segment),
        }
    }
}

fn matches(texts: &[String], segment: &str) -> bool {
    let [first, between @ .., last] = texts else { return false };
    let Some(mut rest) =
        segment.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()))
    else {
        return false;
    };
    // The first place will do: whatever stands behind a later one stands behind this one, too.
    for text in between {
        let Some((parameter, _)) = rest.char_indices().nth(1) else { return false };
        let Some(at) = rest[parameter..].find(text.as_str()) else { return false };
        rest = &rest[parameter + at + text.len()..];
    }
    !rest.is_empty()
}

fn literal(text: &str) -> Result<String, TemplateProblem> {
    if text.contains('}') {
        return Err(TemplateProblem::Braces);
    }
    if text.contains(['?', '#']) {
        return Err(TemplateProblem::Query);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_with_several_parameters() {
        let segment = |text: &str| Template::parse(&format!("/{text}")).unwrap().0.remove(0);
        for (template, fits, fits_not) in [
            ("{a}-{b}", &["1-2", "--a", "a--", "a-b-c", "é-ü"][..], &["-", "a-", "-b", "ab", "--"][..]),
            (
                "v{a}.{b}.json",
                &["v1.2.json", "v1..json.json", "v..a.json"],
                &["v1.json", "v.2.json", "1.2.json"],
            ),
            ("{a}{b}", &["ab", "abc"], &["a", ""]),
            ("{a}", &["a", "."], &[""]),
            ("aa{x}aa", &["aaxaa", "aaaaa"], &["aaaa", "aaa"]),
        ] {
            let segment = segment(template);
            assert!(fits.iter().all(|one| segment.matches(one)), "{template}");
            assert!(!fits_not.iter().any(|one| segment.matches(one)), "{template}");
        }
    }
}
