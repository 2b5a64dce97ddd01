//! What the real drivers take from the machine besides sockets: time and randomness. The engine has both from its driver
//! only, so these three functions are the one place where the process asks for them.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{now, random, wall};
#[cfg(windows)]
pub(crate) use windows::{now, random, wall};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;

    #[test]
    fn k21_the_clock_never_steps_back() {
        let mut last = now();
        for _ in 0..10_000 {
            let next = now();
            assert!(next >= last, "{next:?} after {last:?}");
            last = next;
        }
        assert!(last > Time::ZERO);
    }

    #[test]
    fn entropy_fills_every_length_and_does_not_repeat() {
        for length in [0, 1, 32, 255, 256, 257, 1_000] {
            let mut bytes = vec![0; length];
            random(&mut bytes);
            assert_eq!(bytes.len(), length);
        }
        let (mut one, mut two) = ([0; 32], [0; 32]);
        random(&mut one);
        random(&mut two);
        assert_ne!(one, two);
    }
}
