//! The frames that a thread holds ready to fill, of one worker's.

use crate::frame::Frame;

/// What is there, and what is known of a request for more.
#[derive(Debug)]
pub(super) struct Stock {
    frames: Vec<Frame>,
    /// As many as a request fills it up to.
    most: usize,
    /// A request is on its way, or its answer.
    asked: bool,
    /// The last request brought something: it may have been used up before its end
    /// was heard of, which says nothing of what there is now.
    brought: bool,
}

impl Stock {
    pub fn new(most: usize) -> Self {
        Self { frames: Vec::with_capacity(most), most, asked: false, brought: false }
    }

    /// How many to ask for now. `Some` is to be sent, and answered.
    pub fn ask(&mut self) -> Option<usize> {
        if self.asked || self.frames.len() > self.most / 4 {
            return None;
        }
        (self.asked, self.brought) = (true, false);
        Some(self.most - self.frames.len())
    }

    /// One frame of the answer.
    pub fn bring(&mut self, frame: Frame) {
        self.brought = true;
        self.frames.push(frame);
    }

    /// The end of the answer.
    pub fn answered(&mut self) {
        self.asked = false;
    }

    /// The worker was asked, and had nothing to give.
    pub fn is_denied(&self) -> bool {
        self.frames.is_empty() && !self.asked && !self.brought
    }

    /// Nothing is gained by waiting.
    pub fn is_settled(&self) -> bool {
        !self.asked || !self.frames.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn take(&mut self) -> Option<Frame> {
        self.frames.pop()
    }

    /// Puts one back that was not used.
    pub fn put(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    pub fn drain(&mut self) -> impl Iterator<Item = Frame> + '_ {
        self.frames.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Pool;

    #[test]
    fn an_answer_that_was_used_up_before_its_end_is_no_refusal() {
        let mut pool = Pool::heap(8, 2048);
        let mut stock = Stock::new(8);
        assert_eq!((stock.ask(), stock.ask()), (Some(8), None));
        stock.bring(pool.alloc().unwrap());
        assert!(stock.is_settled());
        pool.free(stock.take().unwrap());
        assert!(!stock.is_settled(), "more may come");
        stock.answered();
        assert!(stock.is_settled() && !stock.is_denied(), "it is to be asked for again");
        assert_eq!(stock.ask(), Some(8));
        assert!(!stock.is_settled());
        stock.answered();
        assert!(stock.is_settled() && stock.is_denied());
        assert_eq!(stock.ask(), Some(8), "a refusal holds for one request");
    }

    #[test]
    fn it_is_filled_up_where_little_is_left() {
        let mut pool = Pool::heap(8, 2048);
        let mut stock = Stock::new(8);
        (0..3).for_each(|_| stock.put(pool.alloc().unwrap()));
        assert_eq!(stock.ask(), None);
        pool.free(stock.take().unwrap());
        assert_eq!(stock.ask(), Some(6));
        assert!(stock.is_settled() && !stock.is_denied(), "some are left");
        stock.drain().for_each(|frame| pool.free(frame));
        assert!(stock.is_empty() && !stock.is_settled());
    }
}
