//! Our own microVM on a real KVM: that of an emulated machine with AMD-V, in which this binary is the host.

use ktstr::prelude::*;

/// The guest's own view of its machine, and a load on all of its CPUs.
fn load_and_look(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = scenarios::steady(ctx)?;
    for cpu in ctx.topo.cpus().iter() {
        let llc = ctx.topo.llc_of(cpu).context("a CPU without LLC")?;
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index3/shared_cpu_list");
        let seen: CpuSet = std::fs::read_to_string(&file)
            .with_context(|| file.clone())?
            .parse()?;
        ensure!(seen == ctx.topo.llc_cpus(llc), "{file} is {seen}");
        let node = ctx.topo.node_of(cpu).context("a CPU without node")?;
        let link = format!("/sys/devices/system/cpu/cpu{cpu}/node{node}");
        ensure!(std::path::Path::new(&link).exists(), "{link} is missing");
    }
    let clocks = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let has_kvm_clock = std::fs::read_to_string(clocks)?.contains("kvm-clock");
    let what = "whether the guest has KVM's clock";
    result.push(CheckResult::equal(
        "hypervisor",
        what,
        &has_kvm_clock.to_string(),
        "true",
    ));
    // The machine around it has one CPU: each of several vCPUs waits for the others, and is told so.
    if ctx.topo.cpu_count() > 1 {
        let ticks = f64::from(stolen_ticks()?);
        result.push(CheckResult::at_least("steal time", ticks, 1.0, "ticks"));
    }
    Ok(result)
}

/// Time in which a CPU of this machine was to run and did not (`steal` of /proc/stat).
fn stolen_ticks() -> Result<u32> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let steal = stat
        .lines()
        .next()
        .and_then(|all| all.split_whitespace().nth(8));
    Ok(steal.context("no steal time")?.parse()?)
}

#[ktstr_test]
#[ignore = "run nested by the tests of this file"]
fn one_cpu(ctx: &Ctx) -> Result<AssertResult> {
    load_and_look(ctx)
}

#[ktstr_test(numa_nodes = 2, llcs = 2, cores = 2)]
#[ignore = "run nested by the tests of this file"]
fn two_nodes(ctx: &Ctx) -> Result<AssertResult> {
    load_and_look(ctx)
}

#[ktstr_test]
#[ignore = "run nested by the tests of this file"]
fn kernel_panics(_: &Ctx) -> Result<AssertResult> {
    std::fs::write("/proc/sysrq-trigger", "c")?;
    bail!("the kernel goes on");
}

#[ktstr_test(performance_mode)]
#[ignore = "run nested by the tests of this file"]
fn alone_on_its_cpu(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = scenarios::steady(ctx)?;
    // `KVM_CPUID_FEATURES`, EDX bit 0 (arch/x86/include/uapi/asm/kvm_para.h).
    let hint = std::arch::x86_64::__cpuid(0x4000_0001).edx & 1;
    let what = "KVM_HINTS_REALTIME in the guest's CPUID";
    result.push(CheckResult::equal("hint", what, &hint.to_string(), "1"));
    Ok(result)
}

#[ktstr_test(cores = 2, memory_mib = 513, performance_mode)]
#[ignore = "run nested by the tests of this file"]
fn two_alone_on_their_cpus(_: &Ctx) -> Result<AssertResult> {
    bail!("one CPU is not two");
}

/// Where a kernel without KASLR is, by its link: the address of its first byte, and of that in guest memory.
const LINKED_AT: (u64, u64) = (0xffff_ffff_8100_0000, 0x100_0000);

/// Where this kernel is.
fn kernel_addresses() -> Result<(u64, u64)> {
    let symbols = std::fs::read_to_string("/proc/kallsyms")?;
    let text = symbols.lines().find(|line| line.ends_with(" _text"));
    let text = text.and_then(|line| line.split(' ').next());
    let resources = std::fs::read_to_string("/proc/iomem")?;
    let code = resources
        .lines()
        .find(|line| line.ends_with(" : Kernel code"));
    let code = code.and_then(|line| line.trim().split('-').next());
    Ok((
        u64::from_str_radix(text.context("no symbol _text")?, 16)?,
        u64::from_str_radix(code.context("no resource of the kernel's code")?, 16)?,
    ))
}

#[ktstr_test]
#[ignore = "run nested by the tests of this file"]
fn kernel_lies_where_it_is_linked(_: &Ctx) -> Result<AssertResult> {
    let (text, code) = kernel_addresses()?;
    ensure!((text, code) == LINKED_AT, "it is at {text:x}, {code:x}");
    Ok(AssertResult::default())
}

// Both addresses are drawn, of hundreds each: not even one in ten thousand boots gets the linked ones.
#[ktstr_test(kaslr)]
#[ignore = "run nested by the tests of this file"]
fn kernel_lies_where_it_chose(_: &Ctx) -> Result<AssertResult> {
    let (text, code) = kernel_addresses()?;
    ensure!((text, code) != LINKED_AT, "it is where it was linked to");
    Ok(AssertResult::default())
}

/// Its second CPU has an APIC id above 255, to which interrupts of devices come as well.
#[ktstr_test(llcs = 2)]
#[ignore = "run with LLC numbers from bit 9 by `numbers_llcs_from_bit_9`"]
fn has_a_wide_apic_id(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = load_and_look(ctx)?;
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let ids = cpus.lines().filter_map(|line| line.strip_prefix("apicid"));
    let ids: Vec<_> = ids
        .map(|id| id.trim_start_matches([':', '\t', ' ']))
        .collect();
    let what = "the APIC ids that the kernel found";
    result.push(CheckResult::equal("ids", what, &ids.join(", "), "0, 512"));
    // A message of the console's, and a line of the I/O APIC.
    for (device, raise) in [("virtio0-", ask_host as Raise), ("ttyS0", write_to_com1)] {
        let before = interrupts_on_cpu_1(device)?;
        for irq in irqs(device)? {
            std::fs::write(format!("/proc/irq/{irq}/smp_affinity_list"), "1")?;
        }
        // The kernel may move an interrupt only once it has come one more time.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut count = 0.0;
        while count < 1.0 && std::time::Instant::now() < until {
            raise(ctx)?;
            count = f64::from(interrupts_on_cpu_1(device)? - before);
        }
        result.push(CheckResult::at_least(
            device,
            count,
            1.0,
            "interrupts on CPU 1",
        ));
    }
    Ok(result)
}

type Raise = fn(&Ctx) -> Result<()>;

fn ask_host(ctx: &Ctx) -> Result<()> {
    Ok(ctx.capture_snapshot("for its answer")?)
}

fn write_to_com1(_: &Ctx) -> Result<()> {
    let mut com1 = std::fs::File::options().write(true).open("/dev/ttyS0")?;
    std::io::Write::write_all(&mut com1, &[b'.'; 256])?;
    Ok(nix::sys::termios::tcdrain(&com1)?)
}

/// Lines of /proc/interrupts, by the name of the device at their end.
fn interrupt_lines(device: &str) -> Result<Vec<String>> {
    let all = std::fs::read_to_string("/proc/interrupts")?;
    let is_its = |line: &&str| {
        let names = line.split_whitespace().last();
        names.is_some_and(|name| name.starts_with(device))
    };
    Ok(all.lines().filter(is_its).map(str::to_owned).collect())
}

fn irqs(device: &str) -> Result<Vec<u32>> {
    let lines = interrupt_lines(device)?;
    ensure!(!lines.is_empty(), "{device} has no interrupt");
    let number = |line: &String| line.split(':').next()?.trim().parse().ok();
    lines
        .iter()
        .map(|line| number(line).with_context(|| line.clone()))
        .collect()
}

fn interrupts_on_cpu_1(device: &str) -> Result<u32> {
    let mut sum = 0;
    for line in interrupt_lines(device)? {
        let count = line
            .split_whitespace()
            .nth(2)
            .context("no column of CPU 1")?;
        sum += count.parse::<u32>()?;
    }
    Ok(sum)
}

#[ktstr_test(host_only, timeout_s = 420)]
#[ignore = "run nested by the tests of this file"]
fn numbers_llcs_from_bit_9(_: &Ctx) -> Result<AssertResult> {
    let numbering = [("KTSTR_APIC_ID_LLC_BIT", "9")];
    let again = e2e::run_again("has_a_wide_apic_id", &numbering);
    println!("{}", again.text);
    let outcome = format!("{:?}", again.sidecar.outcome);
    let mut result = again.sidecar.result;
    result.push(CheckResult::equal("inner", "the outcome", &outcome, "Pass"));
    Ok(result)
}

#[test]
fn a_cpu_may_have_an_apic_id_that_takes_more_than_eight_bits() {
    let sidecar = e2e::run_on("nested", "numbers_llcs_from_bit_9");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
}

#[test]
fn a_test_passes_on_one_cpu() {
    let sidecar = e2e::run_nested("one_cpu");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
}

#[test]
fn a_test_passes_on_two_nodes_with_an_llc_each() {
    let sidecar = e2e::run_nested("two_nodes");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
}

#[test]
fn a_kernel_panic_is_reported_from_within() {
    let sidecar = e2e::run_nested("kernel_panics");
    let failure = sidecar.failure.expect("a failure");
    assert_eq!(
        failure.summary,
        "the guest kernel panicked: sysrq triggered crash"
    );
}

#[test]
fn performance_mode_pins_the_vcpu_on_huge_pages_and_tells_the_guest() {
    let sidecar = e2e::run_nested("alone_on_its_cpu");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
    let placed =
        "performance mode: vCPU 0 on host CPU 0 at SCHED_FIFO 1; 512 MiB in pages of 2048 KiB";
    let remarks = &sidecar.remarks;
    assert!(remarks.iter().any(|remark| remark == placed), "{remarks:?}");
}

#[test]
fn performance_mode_that_a_kvm_can_t_have_is_skipped_with_what_is_missing() {
    let sidecar = e2e::run_nested("two_alone_on_their_cpus");
    assert_eq!(sidecar.outcome, Outcome::Skip, "{sidecar:#?}");
    let missing = "performance mode needs 2 host CPUs, one for each vCPU, while this process may use 1: declare \
                   fewer CPUs, or let it use more; and memory in whole pages of 2 MiB, while a NUMA node has 513 \
                   MiB: declare a memory_mib that gives each node an even number";
    assert_eq!(sidecar.result.skipped.as_deref(), Some(missing));
}

#[test]
fn performance_mode_is_skipped_on_emulated_cpus() {
    let sidecar = e2e::run_on("tcg", "two_alone_on_their_cpus");
    assert_eq!(sidecar.outcome, Outcome::Skip, "{sidecar:#?}");
    let why = sidecar.result.skipped.unwrap();
    let kvm = "performance mode needs a KVM, while the `tcg` engine emulates CPUs: use `--engine kvm`; and ";
    assert!(why.starts_with(kvm), "{why}");
    assert!(why.contains("memory in whole pages of 2 MiB"), "{why}");
}

#[test]
fn a_kernel_chooses_its_addresses_only_if_asked() {
    for (name, kaslr) in [
        ("kernel_lies_where_it_is_linked", false),
        ("kernel_lies_where_it_chose", true),
    ] {
        let sidecar = e2e::run_nested(name);
        assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
        assert_eq!(sidecar.kaslr, kaslr);
    }
}
