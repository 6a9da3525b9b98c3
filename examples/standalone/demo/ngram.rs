//! A small real language model: which word follows which two in a text.

use std::collections::HashMap;

/// A word or a punctuation mark, by its place in the vocabulary.
type Token = u32;

/// Learned from a text once, then shared by every request. Size: about ten times the text.
pub(crate) struct NGram {
    /// Every different token with the blank that stands before it, if one does.
    pieces: Vec<String>,
    by_word: HashMap<String, Token>,
    /// What followed each token in the text, as often as it did.
    after_one: HashMap<Token, Vec<Token>>,
    /// What followed each pair.
    after_two: HashMap<(Token, Token), Vec<Token>>,
    /// What began a sentence.
    starts: Vec<Token>,
}

impl NGram {
    /// Learns from `text`.
    pub(crate) fn learn(text: &str) -> Self {
        let mut model = Self {
            pieces: Vec::new(),
            by_word: HashMap::new(),
            after_one: HashMap::new(),
            after_two: HashMap::new(),
            starts: Vec::new(),
        };
        let tokens: Vec<Token> = split(text).map(|word| model.intern(word)).collect();
        model.starts.extend(tokens.first());
        for pair in tokens.windows(2) {
            model.after_one.entry(pair[0]).or_default().push(pair[1]);
            if model.ends_sentence(pair[0]) {
                model.starts.push(pair[1]);
            }
        }
        for three in tokens.windows(3) {
            model.after_two.entry((three[0], three[1])).or_default().push(three[2]);
        }
        model
    }

    fn intern(&mut self, word: &str) -> Token {
        if let Some(&token) = self.by_word.get(word) {
            return token;
        }
        let token = Token::try_from(self.pieces.len()).unwrap_or(Token::MAX);
        let blank = if is_mark(word) { "" } else { " " };
        self.pieces.push(format!("{blank}{word}"));
        self.by_word.insert(word.to_owned(), token);
        token
    }

    /// How many tokens `text` is, known ones and others.
    pub(crate) fn count(&self, text: &str) -> usize {
        split(text).count()
    }

    /// Goes on from `prompt`. The same prompt and seed give the same text.
    pub(crate) fn continue_from(&self, prompt: &str, seed: u64) -> Writer {
        let known: Vec<Token> = split(prompt).filter_map(|word| self.by_word.get(word).copied()).collect();
        let last = known.last().copied();
        let before = known.len().checked_sub(2).and_then(|at| known.get(at)).copied();
        Writer { last: [before, last], random: fnv1a(prompt.as_bytes()) ^ seed, begun: false }
    }

    fn piece(&self, token: Token) -> &str {
        self.pieces.get(token as usize).map_or("", String::as_str)
    }

    fn ends_sentence(&self, token: Token) -> bool {
        matches!(self.piece(token), "." | "!" | "?")
    }
}

/// One text in the making.
pub(crate) struct Writer {
    last: [Option<Token>; 2],
    random: u64,
    begun: bool,
}

impl Writer {
    /// The next piece of text, and whether a sentence ends with it.
    pub(crate) fn next<'m>(&mut self, model: &'m NGram) -> (&'m str, bool) {
        let mut token = self.step(model);
        // An answer does not begin with a comma; whatever the text, words come soon.
        for _ in 0..4 {
            if self.begun || !is_mark(model.piece(token).trim_start()) {
                break;
            }
            token = self.step(model);
        }
        let piece = model.piece(token);
        let piece = if self.begun { piece } else { piece.trim_start() };
        self.begun = true;
        (piece, model.ends_sentence(token))
    }

    fn step(&mut self, model: &NGram) -> Token {
        let token = self.choose(model);
        self.last = [self.last[1], Some(token)];
        token
    }

    fn choose(&mut self, model: &NGram) -> Token {
        let [before, last] = self.last;
        let three = before.zip(last).and_then(|pair| model.after_two.get(&pair));
        let two = last.and_then(|last| model.after_one.get(&last));
        // Where the text leaves only one way to go on, the model would just recite: back off now and then.
        let recites = three.is_some_and(|next| next.iter().all(|token| *token == next[0]));
        let back_off = recites && self.draw(3) == 0;
        let from = three.filter(|_| !back_off).or(two).unwrap_or(&model.starts);
        from[self.draw(from.len())]
    }

    /// A number below `limit` (splitmix64, which needs no state but a counter).
    fn draw(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % limit.max(1) as u64) as usize
    }
}

/// Words and punctuation marks. Quotation marks and brackets are left out: a model that sees two words
/// back cannot close what it opened.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let is_edge = |c: char| matches!(c, '`' | '\'' | '"' | '(' | ')' | '[' | ']' | '_' | '*');
    text.split_whitespace()
        .flat_map(|word| word.split_inclusive("--"))
        .flat_map(move |word| {
            let word = word.trim_matches(is_edge);
            let (word, dash) = word.strip_suffix("--").map_or((word, ""), |word| (word, "--"));
            let bare = word.trim_end_matches(|c| is_mark_char(c) || is_edge(c));
            let mark = &word[bare.len()..];
            let mark = mark.find(is_mark_char).map_or("", |at| &mark[at..=at]);
            [bare.trim_matches(is_edge), mark, dash]
        })
        .filter(|word| !word.is_empty())
}

fn is_mark_char(c: char) -> bool {
    matches!(c, '.' | ',' | ';' | ':' | '!' | '?')
}

fn is_mark(word: &str) -> bool {
    word == "--" || word.chars().all(is_mark_char)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
