//! Who has how much of one prompt.

/// How far the runners that have seen a prompt's beginning have seen it.
#[derive(Debug)]
pub(super) struct Holders {
    list: [(u16, u32); Self::MOST],
    len: usize,
    /// Where in the list a runner probably is, by what is left of its number. Looked at before the list is searched:
    /// a long prompt that many have is thousands of questions.
    guesses: [u8; Self::GUESSES],
}

impl Holders {
    /// So many are told apart; a fleet of this size is known as a whole, and of a larger one those who have most.
    pub(super) const MOST: usize = 64;
    const GUESSES: usize = 256;

    pub(super) fn none() -> Self {
        Self { list: [(0, 0); Self::MOST], len: 0, guesses: [0; Self::GUESSES] }
    }

    /// Runners by number, each with how many leading blocks it has.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        self.list[..self.len].iter().copied()
    }

    /// Leading blocks that the runner has.
    #[inline]
    pub(super) fn blocks(&self, runner: u16) -> u32 {
        self.find(runner).map_or(0, |at| self.list[at].1)
    }

    #[inline]
    fn find(&self, runner: u16) -> Option<usize> {
        let known = &self.list[..self.len];
        let guess = usize::from(self.guesses[usize::from(runner) % Self::GUESSES]);
        if known.get(guess).is_some_and(|(number, _)| *number == runner) {
            return Some(guess);
        }
        known.iter().position(|(number, _)| *number == runner)
    }

    /// The runner has so many blocks; told in the order of the blocks.
    #[inline]
    pub(super) fn note(&mut self, runner: u16, blocks: u32) {
        let at = match self.find(runner) {
            Some(at) => at,
            None if self.len < Self::MOST => {
                self.len += 1;
                self.len - 1
            }
            None => match self.list.iter().enumerate().min_by_key(|(_, (_, blocks))| *blocks) {
                // Who has more matters more than who was found first.
                Some((at, (_, fewest))) if *fewest < blocks => at,
                _ => return,
            },
        };
        self.list[at] = (runner, blocks);
        // There are fewer places than a byte can tell.
        self.guesses[usize::from(runner) % Self::GUESSES] = at as u8;
    }
}
