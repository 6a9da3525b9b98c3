//! Templates match what they should and nothing else.

use gateway_core::Deadlines;
use http::Method;
use proptest::prelude::*;

use super::*;
use crate::openapi::OpenApi;

/// A document in which each path has one method, and a label that is its own template.
fn table(templates: &[String]) -> Result<GenericTable, InvalidRoute> {
    let item =
        |path: &String| format!(r#""{path}":{{"get":{{"x-gateway":{{"labels":{{"is":"{path}"}}}}}}}}"#);
    let paths: Vec<String> = templates.iter().map(item).collect();
    let text = format!(r#"{{"openapi":"3.0.0","paths":{{{}}}}}"#, paths.join(","));
    let route = GenericRoute::openapi(OpenApi::from_json(&text).unwrap());
    GenericTable::new(vec![route], Deadlines::default()).map(Option::unwrap)
}

fn found<'t>(table: &'t GenericTable, path: &str) -> Option<&'t str> {
    match table.find(&Method::GET, path)? {
        Found::Target(target) => target.requirements.labels.get("is").map(String::as_str),
        Found::WrongMethod(_) => panic!("every path has GET"),
    }
}

/// The plain meaning of a template: as many segments, each equal to the text around its parameter, which is not
/// empty.
fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(template, segment)| match template.split_once('{') {
            None => template == segment,
            Some((before, rest)) => {
                let after = rest.split_once('}').unwrap().1;
                segment.len() > before.len() + after.len()
                    && segment.starts_with(before)
                    && segment.ends_with(after)
            }
        })
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ab]{1,2}",
        2 => Just("{x}".to_owned()),
        1 => "[ab]\\{x\\}",
        1 => "\\{x\\}\\.[ab]",
        1 => "[ab]\\{x\\}[ab]",
    ]
}

fn template() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(), 1..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_path_is_found_if_and_only_if_a_template_means_it(
        templates in prop::collection::btree_set(template(), 1..8),
        paths in prop::collection::vec("(/[ab.]{0,3}){1,4}", 1..20),
    ) {
        let templates: Vec<String> = templates.into_iter().collect();
        // Those that differ by the name of a parameter are one, which is served twice.
        let Ok(table) = table(&templates) else { return Ok(()) };
        let exact = |path: &str| templates.iter().any(|template| template == path);
        for path in paths.iter().chain(templates.iter().filter(|path| !path.contains('{'))) {
            let expected: Vec<&String> = templates.iter().filter(|one| matches(one, path)).collect();
            match found(&table, path) {
                None => prop_assert!(expected.is_empty() || has_dots(path), "{path} is {expected:?}"),
                Some(template) => {
                    prop_assert!(matches(template, path), "{path} is not {template}");
                    // An exact path goes before every template.
                    prop_assert!(!exact(path) || template == path, "{path} is not {template}");
                }
            }
        }
    }
}

#[test]
fn dots_are_seen_in_every_writing() {
    for path in ["/..", "/a/../b", "/.", "/%2e", "/%2E%2e/x", "/.%2e", "/a/%2E."] {
        assert!(has_dots(path), "{path}");
    }
    for path in ["/", "/...", "/a.b", "/.a", "/%2", "/%2f", "/%2e%2e%2e", "/é", "/%é"] {
        assert!(!has_dots(path), "{path}");
    }
}
