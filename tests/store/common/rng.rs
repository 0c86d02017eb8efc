//! Random numbers that a seed repeats.

pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    /// Bytes that compress well, badly or in part.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (style, word) = (self.below(3), self.next());
        let mut noise = Rng::new(word);
        (0..len)
            .map(|i| match style {
                0 => noise.next() as u8,
                1 => (word >> (i / 500 % 40)) as u8,
                _ if i / 700 % 2 == 0 => noise.next() as u8,
                _ => 7,
            })
            .collect()
    }
}
