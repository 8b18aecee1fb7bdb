//! What a person reads, kind by kind.

use std::path::Path;

use insta::assert_snapshot;
use ktstr_report::{
    EngineInfo, Expectation, Expected, KernelInfo, Outcome, Palette, Renderer, RunSummary,
    SchedulerReport, Sidecar,
};
use proptest::prelude::*;

use crate::samples;

fn plain(sidecar: &Sidecar) -> String {
    let path = Path::new("target/ktstr/runs/R/steady_two_llcs.json");
    Renderer::new(Palette::PLAIN).test(sidecar, Some(path))
}

#[test]
fn a_pass_is_one_line() {
    assert_snapshot!(plain(&samples::pass("eevdf::steady_two_llcs")));
}

#[test]
fn a_pass_after_a_failed_boot_says_so() {
    assert_snapshot!(plain(&samples::retried("eevdf::steady_two_llcs")));
}

#[test]
fn a_kernel_that_chose_its_addresses_is_marked() {
    let mut sidecar = samples::pass("eevdf::steady_two_llcs");
    assert!(!plain(&sidecar).contains("KASLR"));
    sidecar.kaslr = true;
    assert!(plain(&sidecar).contains("KASLR"));
}

#[test]
fn a_pass_after_a_long_wait_says_so() {
    let mut sidecar = samples::pass("eevdf::steady_two_llcs");
    sidecar.timings.queued_ms = 4_999;
    assert!(!plain(&sidecar).contains("waiting"));
    sidecar.timings.queued_ms = 65_400;
    sidecar.timings.total_ms += 65_400;
    assert_snapshot!(plain(&sidecar));
}

#[test]
fn a_pass_says_by_reason_what_it_does_not_vouch_for() {
    let mut sidecar = samples::pass("eevdf::steady_two_llcs");
    for check in ["max_gap_ms", "isolation"] {
        let off = samples::not_checked(check, "turned off by the test");
        sidecar.result.not_checked.push(off);
    }
    for check in ["min_a", "min_b", "max_c", "max_d"] {
        let unbound = samples::not_checked(check, "the test sets no bound");
        sidecar.result.not_checked.push(unbound);
    }
    assert_snapshot!(plain(&sidecar));
}

#[test]
fn a_skip_is_one_line_with_its_reason() {
    assert_snapshot!(plain(&samples::skipped("eevdf::steady_two_llcs")));
}

#[test]
fn a_failed_check() {
    assert_snapshot!(plain(&samples::check_failed("eevdf::steady_two_llcs")));
}

#[test]
fn a_dead_guest_after_a_failed_boot() {
    let mut sidecar = samples::guest_died("fault_tests::kernel::crash");
    sidecar.boot_retries = samples::retried("x").boot_retries;
    assert_snapshot!(plain(&sidecar));
}

#[test]
fn a_failed_harness() {
    assert_snapshot!(plain(&samples::harness_failed("eevdf::steady_two_llcs")));
}

#[test]
fn an_unfit_host() {
    assert_snapshot!(plain(&samples::host_unfit("eevdf::steady_two_llcs")));
}

#[test]
fn an_inconclusive_test() {
    assert_snapshot!(plain(&samples::inconclusive("eevdf::steady_two_llcs")));
}

#[test]
fn the_command_to_run_again_is_one_for_the_shell() {
    let mut sidecar = samples::check_failed("it's::two words; reboot");
    let mut kernel = sidecar.kernel.take().unwrap();
    kernel.key = "/boot/my kernel".to_owned();
    sidecar.kernel = Some(kernel);
    assert_eq!(
        sidecar.rerun_command(),
        r"cargo ktstr test --kernel '/boot/my kernel' --engine tcg -E 'binary(=it'\''s) & test(=two words; reboot)'"
    );
}

#[test]
fn fault_f8_the_command_to_run_again_has_what_was_asked_for_and_nothing_else() {
    let mut sidecar = samples::host_unfit("a::test");
    sidecar.kernel = Some(KernelInfo {
        key: "debian".to_owned(),
        ..KernelInfo::default()
    });
    sidecar.engine = Some(EngineInfo {
        name: "kvm".to_owned(),
        ..EngineInfo::default()
    });
    let again = "cargo ktstr test --kernel debian --engine kvm -E 'binary(=a) & test(=test)'";
    assert_eq!(sidecar.rerun_command(), again);
    let line = Renderer::default().line(&sidecar);
    assert!(!line.contains("·  ·"), "{line}");

    // A test without a machine.
    sidecar.kernel = Some(KernelInfo::default());
    sidecar.engine = Some(EngineInfo {
        name: EngineInfo::HOST.to_owned(),
        ..EngineInfo::default()
    });
    let again = "cargo ktstr test -E 'binary(=a) & test(=test)'";
    assert_eq!(sidecar.rerun_command(), again);
}

#[test]
fn fault_f13_a_run_in_a_narrow_terminal_has_no_line_that_is_too_wide() {
    let text = Renderer::default().within(60).summary(&run());
    for line in text.lines() {
        let is_table = line.starts_with("checked nowhere");
        assert!(line.chars().count() <= 60 || is_table, "{line}");
    }
    assert_snapshot!(text);
    let wide = Renderer::default().within(400).summary(&run());
    assert_eq!(wide, Renderer::default().summary(&run()));
}

#[test]
fn a_run() {
    assert_snapshot!(Renderer::new(Palette::PLAIN).summary(&run()));
}

#[test]
fn a_run_without_a_test() {
    assert_snapshot!(Renderer::default().summary(&RunSummary::default()));
}

#[test]
fn colours_change_nothing_but_colours() {
    let colored = Renderer::new(Palette::COLORED);
    let reports = [
        samples::pass("a"),
        samples::check_failed("b"),
        samples::guest_died("c"),
        samples::inconclusive("d"),
        samples::skipped("e"),
    ];
    for sidecar in reports {
        let text = colored.test(&sidecar, None);
        assert!(text.contains("\u{1b}["), "{text}");
        assert_eq!(uncolored(&text), Renderer::default().test(&sidecar, None));
    }
    let text = colored.summary(&run());
    assert_eq!(uncolored(&text), Renderer::default().summary(&run()));
}

fn run() -> RunSummary {
    let mut retried_boot = samples::retried("smt_siblings");
    retried_boot.result.not_checked.clear();
    let mut one_cpu = samples::pass("one_cpu");
    for check in ["max_spread_pct", "isolation"] {
        let off = samples::not_checked(check, "turned off by the test");
        one_cpu.result.not_checked.push(off);
    }
    let sidecars = [
        one_cpu,
        samples::check_failed("oversubscribed_by_a_factor_of_four"),
        samples::inconclusive("two_nodes"),
        samples::skipped("needs_sched_ext"),
        samples::guest_died("crash"),
        retried_boot,
        samples::pass("crash"),
    ];
    let mut summary = RunSummary::of_sidecars(&sidecars);
    summary.unreadable = vec!["R/x.json is damaged: EOF while parsing".to_owned()];
    summary
}

/// SGR sequences taken out: nothing else may be in a rendering.
fn uncolored(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let (_, rest) = part.split_once('m').unwrap();
        out.push_str(rest);
    }
    out
}

proptest! {
    /// A guest chooses every text in its result, its output and its console.
    #[test]
    fn no_text_of_a_guest_controls_the_terminal(
        hostile in "[\\x00-\\x7f\u{80}-\u{9f}\u{202e}é\\x1b\\[\\]]{0,60}",
        kind in 0..4_usize,
    ) {
        let mut sidecar = [
            samples::pass, samples::check_failed, samples::guest_died, samples::inconclusive,
        ][kind](&hostile);
        for check in &mut sidecar.result.checks {
            check.check.clone_from(&hostile);
            check.unit.clone_from(&hostile);
            check.detail.clone_from(&hostile);
            check.subject.cgroup = Some(hostile.clone());
        }
        for cgroup in &mut sidecar.result.cgroups {
            cgroup.name.clone_from(&hostile);
            for worker in &mut cgroup.workers {
                worker.work_type.clone_from(&hostile);
            }
        }
        sidecar.result.not_checked = vec![samples::not_checked(&hostile, &hostile)];
        sidecar.result.notes = vec![hostile.clone()];
        sidecar.output.clone_from(&hostile);
        sidecar.console_tail.clone_from(&hostile);
        if let Some(failure) = &mut sidecar.failure {
            failure.summary.clone_from(&hostile);
            failure.detail.clone_from(&hostile);
        }
        let summary = RunSummary::of_sidecars([&sidecar]);
        for text in [plain(&sidecar), Renderer::default().summary(&summary)] {
            let foreign = text.chars().find(|&c| c.is_control() && !matches!(c, '\n' | '\t'));
            prop_assert_eq!(foreign, None, "{:?}", text);
        }
    }
}

#[test]
fn fault_a5_every_exit_of_a_reloaded_scheduler() {
    insta::assert_snapshot!(plain(&samples::reloaded("mine::hotplug")));
}

#[test]
fn a_stalled_scheduler() {
    assert_snapshot!(plain(&samples::stalled("mine::steady")));
}

/// Who ran and who waited comes first in the kernel's section: maps stand at the end, and what is cut is the tail.
#[test]
fn fault_g1_the_kernels_section_keeps_its_head() {
    let lines = |what: &str| {
        (0..300)
            .map(|at| format!("{what} {at}\n"))
            .collect::<String>()
    };
    let mut sidecar = samples::stalled("mine::steady");
    sidecar.failure_dump = format!("longest waiting: worker[9]\n{}", lines("CPU"));
    sidecar.failure_maps = lines("map");
    let text = plain(&sidecar);
    let at = |part: &str| {
        text.find(part)
            .unwrap_or_else(|| panic!("no `{part}` in: {text}"))
    };
    assert!(at("longest waiting: worker[9]") < at("CPU 0"), "{text}");
    assert!(at("CPU 0") < at("left out here"), "{text}");
    assert!(at("the scheduler's log") < at("map 0"), "{text}");
}

#[test]
fn a_stall_that_was_expected_is_one_line() {
    let mut sidecar = samples::stalled("mine::steady");
    let scheduler = sidecar.scheduler.as_ref().expect("a scheduler");
    sidecar.expected = Some(Expected {
        what: Expectation::Stall,
        met: true,
        seen: scheduler.sentence(),
        excused: vec!["max_gap_ms".to_owned(), "progress".to_owned()],
    });
    sidecar.outcome = Outcome::Pass;
    assert_snapshot!(plain(&sidecar));
}

/// No machine was booted, for example: the kernel has no sched_ext.
#[test]
fn a_scheduler_that_was_never_seen_is_not_said_to_have_run() {
    let never = SchedulerReport {
        name: "mine".to_owned(),
        ..SchedulerReport::default()
    };
    assert_eq!(never.sentence(), "scheduler `mine` was not seen attached");
    let cut_short = SchedulerReport {
        attach_ms: Some(7),
        ..never
    };
    let sentence = "scheduler `mine` was still there when the machine ended";
    assert_eq!(cut_short.sentence(), sentence);
}

#[test]
fn a_check_that_each_step_leaves_out_is_named_once() {
    let mut sidecar = samples::pass("eevdf::steady_two_llcs");
    let left_out = sidecar.result.not_checked[0].clone();
    let once = plain(&sidecar);
    sidecar.result.not_checked.push(left_out);
    assert_eq!(plain(&sidecar), once);
}
