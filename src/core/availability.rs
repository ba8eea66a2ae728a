//! How likely a mail can be had: closed forms of the papers and of fragments, from the probability that a peer is up. It knows
//! nothing of real peers; what really happens is measured beside it.
//!
//! Sources: Kangasharju, Ross, Turner, "Secure and resilient peer-to-peer e-mail", section 4, equations 1 to 6; Bouwsma and
//! Visser, equations 1 and 2; the binomial distribution for any k of n.

/// A probability, 0 to 1.
pub type Probability = f64;

/// `1 - (1 - small)^count`, exact also where `small` is far below the resolution of `1 - small`.
fn at_least_one(small: Probability, count: f64) -> Probability {
    if small >= 1.0 { 1.0 } else { -(count * (-small).ln_1p()).exp_m1() }
}

/// The natural logarithm of n over i.
fn ln_choose(n: u32, i: u32) -> f64 {
    (0..i.min(n - i)).map(|j| (f64::from(n - j) / f64::from(j + 1)).ln()).sum()
}

/// The chance of at least `least` of `n` independent events of probability `p` each.
fn binomial_tail(n: u32, least: u32, p: Probability) -> Probability {
    let term = |i: u32| match (p <= 0.0, p >= 1.0) {
        (true, _) => f64::from(i == 0),
        (_, true) => f64::from(i == n),
        _ => (ln_choose(n, i) + f64::from(i) * p.ln() + f64::from(n - i) * (-p).ln_1p()).exp(),
    };
    (least..=n).map(term).sum::<f64>().min(1.0)
}

/// All of `copies` peers are down (Kangasharju et al., equation 1; Bouwsma and Visser, equation 2).
pub fn all_down(up: Probability, copies: u32) -> Probability {
    (1.0 - up).powf(f64::from(copies))
}

/// All of these peers are down, each with an availability of its own (Bouwsma and Visser, equation 1).
pub fn each_down(ups: &[Probability]) -> Probability {
    ups.iter().map(|up| 1.0 - up).product()
}

/// `copies` peers that were down when a mail was stored come back and are the closest (Kangasharju et al., equation 2, as far as
/// the print is legible): `down` of `peers` were down then.
pub fn returned_are_closer(up: Probability, down: u32, peers: u32, copies: u32) -> Probability {
    any_so_many(down, copies, up * (1.0 - up) / f64::from(peers))
}

/// `copies` of `newcomers` are closer than those that hold a mail, among `peers` (Kangasharju et al., equation 3, as far as the
/// print is legible).
pub fn newcomers_are_closer(peers: u32, newcomers: u32, copies: u32) -> Probability {
    any_so_many(newcomers, copies, 1.0 / (f64::from(peers) + 1.0))
}

/// The sum over i from `least` to `n` of C(n, i) each^i: an upper bound of a binomial tail, as equations 2 and 3 have it.
fn any_so_many(n: u32, least: u32, each: Probability) -> Probability {
    if each <= 0.0 {
        return 0.0;
    }
    let mut sum: f64 = 0.0;
    for i in least..=n {
        let more = (ln_choose(n, i) + f64::from(i) * each.ln()).exp();
        sum += more;
        if more <= sum * f64::EPSILON {
            break;
        }
    }
    sum.min(1.0)
}

/// One operation succeeds: one of `copies` peers is up (Kangasharju et al., equation 4).
pub fn one_succeeds(up: Probability, copies: u32) -> Probability {
    1.0 - all_down(up, copies)
}

/// `operations` in a row succeed (Kangasharju et al., equation 5).
pub fn all_succeed(up: Probability, copies: u32, operations: u32) -> Probability {
    1.0 - at_least_one(all_down(up, copies), f64::from(operations))
}

/// Copies that are needed for `operations` in a row to succeed with probability `target`, not rounded (Kangasharju et al.,
/// equation 6). Infinite where `up` is 0.
pub fn copies_for(target: Probability, operations: u32, up: Probability) -> f64 {
    // 1 - target^(1/n), without losing what is left of a target close to 1.
    let missed = -(target.ln() / f64::from(operations)).exp_m1();
    let copies = missed.ln() / (-up).ln_1p();
    if up <= 0.0 { f64::INFINITY } else { copies.max(0.0) }
}

/// At least `k` of `n` peers are up: the members alone can give a mail back.
pub fn k_of_n(up: Probability, k: u32, n: u32) -> Probability {
    binomial_tail(n, k, up)
}

/// The mail can be had: its owner is up, or at least `k` of `n` members are.
pub fn owner_or_k_of_n(owner_up: Probability, up: Probability, k: u32, n: u32) -> Probability {
    1.0 - (1.0 - owner_up) * (1.0 - k_of_n(up, k, n))
}

/// The same for members that also fail together: with probability `site_down` all of them are down at once (a power cut), the
/// owner's machine among them.
pub fn with_a_common_cause(site_down: Probability, alone: Probability) -> Probability {
    (1.0 - site_down) * alone
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) + 1e-300
    }

    #[test]
    fn kangasharju_table_2_is_equation_1_but_for_one_cell() {
        let printed = [(0.99, 1e-10), (0.9, 1e-8), (0.5, 0.03), (0.3, 0.17)];
        let ours = printed.map(|(up, _)| all_down(up, 5));
        assert!(close(ours[0], 1e-10) || (ours[0] / 1e-10 - 1.0).abs() < 1e-6, "{ours:?}");
        assert!((ours[1] / 1e-5 - 1.0).abs() < 1e-9, "0.1^5 is 1e-5, not the 1e-8 that was printed: {ours:?}");
        assert!((ours[2] - 0.03125).abs() < 1e-12 && (ours[3] - 0.16807).abs() < 1e-12, "{ours:?}");
    }

    #[test]
    fn all_copies_down_dominates_the_other_two_causes() {
        for up in [0.9, 0.5, 0.3] {
            let first = all_down(up, 5);
            assert!(returned_are_closer(up, 5_000, 10_000, 5) < first, "{up}");
            assert!(newcomers_are_closer(10_000, 1_000, 5) < first, "{up}");
        }
    }

    #[test]
    fn unequal_peers_multiply() {
        assert!(close(each_down(&[0.9, 0.5, 0.2]), 0.1 * 0.5 * 0.8));
        assert!(close(each_down(&[0.7; 4]), all_down(0.7, 4)));
        assert_eq!(each_down(&[]), 1.0);
    }

    #[test]
    fn three_of_five_at_nine_tenths() {
        // 10 * 0.9^3 * 0.1^2 + 5 * 0.9^4 * 0.1 + 0.9^5
        assert!(close(k_of_n(0.9, 3, 5), 0.99144));
        assert!(close(owner_or_k_of_n(0.9, 0.9, 3, 5), 1.0 - 0.1 * (1.0 - 0.99144)));
        assert!(close(with_a_common_cause(0.25, 0.8), 0.6));
    }

    #[test]
    fn the_ends_of_the_scale() {
        for (k, n) in [(1, 1), (3, 5), (5, 5)] {
            assert_eq!((k_of_n(0.0, k, n), k_of_n(1.0, k, n)), (0.0, 1.0));
        }
        assert_eq!(k_of_n(0.3, 0, 4), 1.0);
        assert!(copies_for(0.99, 2, 0.0).is_infinite());
        assert_eq!(copies_for(0.99, 2, 1.0), 0.0);
        assert_eq!(returned_are_closer(1.0, 0, 100, 5), 0.0);
    }

    proptest! {
        #[test]
        fn copies_for_a_target_reach_it_and_one_less_does_not(
            up in 0.05..0.95f64, nines in 2u32..6, operations in prop::sample::select(vec![2u32, 100, 10_000]),
        ) {
            let target = 1.0 - 10f64.powf(-f64::from(nines));
            let exact = copies_for(target, operations, up);
            let copies = (1..2_000u32).find(|copies| f64::from(*copies) >= exact).unwrap();
            prop_assert!(all_succeed(up, copies, operations) >= target - 1e-12);
            if copies > 1 && exact > f64::from(copies - 1) + 1e-6 {
                prop_assert!(all_succeed(up, copies - 1, operations) < target);
            }
        }

        #[test]
        fn k_of_n_is_the_sum_over_every_set_of_peers(up in 0.0..=1.0f64, n in 1u32..11, k in 0u32..11) {
            prop_assume!(k <= n);
            let mut sum = 0.0;
            for set in 0u32..1 << n {
                let ups = set.count_ones();
                if ups >= k {
                    sum += up.powf(f64::from(ups)) * (1.0 - up).powf(f64::from(n - ups));
                }
            }
            prop_assert!((k_of_n(up, k, n) - sum).abs() < 1e-9);
        }
    }
}
