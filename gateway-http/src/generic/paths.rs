//! Which template means a path.
//!
//! By hand, although there are well-kept routers: those that were tried (matchit 0.9) do not come back from a
//! parameter with text around it when the rest of the path does not fit, and so miss paths that a plainer
//! template means.

use std::collections::HashMap;

use crate::openapi::{Segment, Template};

/// A tree with a step for each segment. A search visits each node once at most: where it is in the path is where
/// it is in the tree.
#[derive(Default)]
pub(super) struct Paths {
    root: Node,
}

#[derive(Default)]
struct Node {
    literals: HashMap<String, Node>,
    /// Those with most text first: what is nearer to an exact path wins.
    patterns: Vec<(Segment, Node)>,
    place: Option<usize>,
}

impl Paths {
    /// The place of a template. It gets `new` if it is not known yet.
    pub(super) fn place(&mut self, template: Template, new: usize) -> usize {
        let mut node = &mut self.root;
        for segment in template.0 {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text).or_default(),
                pattern => node.pattern(pattern),
            };
        }
        *node.place.get_or_insert(new)
    }

    pub(super) fn find(&self, path: &str) -> Option<usize> {
        self.root.find(path.strip_prefix('/')?)
    }
}

impl Node {
    fn pattern(&mut self, pattern: Segment) -> &mut Self {
        let known = self.patterns.iter().position(|(one, _)| *one == pattern);
        let at = known.unwrap_or_else(|| {
            let at = self.patterns.partition_point(|(one, _)| one.text_len() >= pattern.text_len());
            self.patterns.insert(at, (pattern, Self::default()));
            at
        });
        &mut self.patterns[at].1
    }

    /// As deep as the longest template at most, however long the path is.
    fn find(&self, path: &str) -> Option<usize> {
        let (segment, rest) = match path.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (path, None),
        };
        let go_on = |node: &Self| match rest {
            Some(rest) => node.find(rest),
            None => node.place,
        };
        let exact = self.literals.get(segment).and_then(go_on);
        exact.or_else(|| {
            let mut fitting = self.patterns.iter().filter(|(pattern, _)| pattern.matches(segment));
            fitting.find_map(|(_, node)| go_on(node))
        })
    }
}
