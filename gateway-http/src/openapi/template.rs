//! Templates of paths, such as `/tasks/{id}/run`.

use std::fmt::Write;

/// A template in the router's notation, with its parameters numbered: two that match the same are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Template(String);

/// Why a template cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateProblem {
    #[error("a path must begin with `/`")]
    NoSlash,
    #[error("its braces do not match: write parameters as `{{name}}`")]
    Braces,
    #[error(
        "a segment may hold one parameter, with text before and after it: serve this path by a prefix instead"
    )]
    TwoInASegment,
    #[error("a path has neither `?` nor `#`: leave out the query")]
    Query,
}

impl Template {
    pub(crate) fn parse(path: &str) -> Result<Self, TemplateProblem> {
        if !path.starts_with('/') {
            return Err(TemplateProblem::NoSlash);
        }
        let mut out = String::with_capacity(path.len());
        let mut count = 0;
        for (at, segment) in path.split('/').enumerate() {
            if at > 0 {
                out.push('/');
            }
            let Some((before, rest)) = segment.split_once('{') else {
                literal(segment, &mut out)?;
                continue;
            };
            let (name, after) = rest.split_once('}').ok_or(TemplateProblem::Braces)?;
            if name.is_empty() || name.contains('{') {
                return Err(TemplateProblem::Braces);
            }
            if after.contains('{') {
                return Err(TemplateProblem::TwoInASegment);
            }
            literal(before, &mut out)?;
            // Writing to a string cannot fail.
            let _ = write!(out, "{{p{count}}}");
            literal(after, &mut out)?;
            count += 1;
        }
        Ok(Self(out))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn literal(text: &str, out: &mut String) -> Result<(), TemplateProblem> {
    if text.contains('}') {
        return Err(TemplateProblem::Braces);
    }
    if text.contains(['?', '#']) {
        return Err(TemplateProblem::Query);
    }
    out.push_str(text);
    Ok(())
}
