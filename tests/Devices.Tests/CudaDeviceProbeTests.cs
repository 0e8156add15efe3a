using Microsoft.Extensions.Time.Testing;
using Tensormesh.TestKit;

namespace Tensormesh.Devices.Tests;

public sealed class CudaDeviceProbeTests(MockDriverFixture mock)
{
    [Fact]
    public async Task Sees_all_there_is_to_a_device()
    {
        await using var node = new MockNode(mock.Driver);
        node.Change(3, gpu => gpu with
        {
            UsedMebibytes = 1024,
            EccCorrected = 7,
            RetiredSingle = 2,
            RetiredPending = true,
            RemappedCorrected = 1,
            RemapPending = true,
            Utilization = 97,
            MemoryUtilization = 41,
            Temperature = 71,
            PowerMilliwatts = 651_200,
            Throttle = 0x4 | 0x20,
            Processes = [new MockProcess(4242, 1000), new MockProcess(4243, null)],
        });
        var seen = await node.ProbeAsync();

        Assert.Equal((DriverState.Working, "", "550.54.15", "12.4"), (seen.Driver, seen.Message, seen.DriverVersion, seen.CudaVersion));
        Assert.Equal(Enumerable.Range(0, 8), seen.Devices.Select(device => device.Index));
        Assert.Equal(node.Gpus.Devices.Select(gpu => gpu.Uuid), seen.Devices.Select(device => device.Uuid!.Value.Value));
        Assert.True(seen.IsWhole);
        var device = seen.Devices[3];
        Assert.Equal(
            new Device
            {
                Index = 3,
                Uuid = new DeviceUuid(node.Gpus.Devices[3].Uuid),
                Health = DeviceHealth.Healthy,
                Name = "NVIDIA H100 80GB HBM3",
                PciBusId = "00000000:13:00.0",
                TotalMemoryBytes = 81559L << 20,
                FreeMemoryBytes = 80535L << 20,
                ComputeCapability = new ComputeCapability(9, 0),
                Multiprocessors = 132,
                MigEnabled = false,
                MigInstances = device.MigInstances,
                EccEnabled = true,
                CorrectedEccErrors = 7,
                UncorrectedEccErrors = 0,
                RetiredPages = new RetiredPages(2, 0, Pending: true),
                RowRemap = new RowRemap(1, 0, Pending: true, Failed: false),
                PowerMilliwatts = 651_200,
                PowerLimitMilliwatts = 700_000,
                TemperatureCelsius = 71,
                GpuUtilizationPercent = 97,
                MemoryUtilizationPercent = 41,
                Throttle = ThrottleReasons.SoftwarePowerCap | ThrottleReasons.SoftwareThermal,
                Processes = device.Processes,
                XidErrors = device.XidErrors,
            },
            device);
        Assert.Equal([new DeviceProcess(4242, 1000L << 20), new DeviceProcess(4243, null)], device.Processes);
        Assert.Empty(device.MigInstances);
        Assert.Empty(device.XidErrors);
    }

    [Fact]
    public async Task Reads_a_driver_without_versioned_entry_points()
    {
        await using var node = new MockNode(mock.OldDriver);
        node.Change(0, gpu => gpu with { Processes = [new MockProcess(4242, 1000)] });
        var seen = await node.ProbeAsync();
        Assert.True(seen.IsWhole, seen.Message);
        Assert.Equal([new DeviceProcess(4242, 1000L << 20)], seen.Devices[0].Processes);
        Assert.Equal("00000000:10:00.0", seen.Devices[0].PciBusId);
        Assert.Equal(132, seen.Devices[0].Multiprocessors);
        // What came later is not known, and no fault.
        Assert.All(seen.Devices, device => Assert.Null(device.RowRemap));
        Assert.All(seen.Devices, device => Assert.Null(device.MigEnabled));
    }

    [Fact]
    public async Task Lists_more_processes_than_there_was_room_for()
    {
        await using var node = new MockNode(mock.Driver);
        node.Change(0, gpu => gpu with { Processes = [.. Enumerable.Range(1, 40).Select(id => new MockProcess(id, 1))] });
        Assert.Equal(Enumerable.Range(1, 40), (await node.ProbeAsync()).Devices[0].Processes!.Select(process => process.ProcessId));
    }

    [Fact]
    public async Task What_a_device_does_not_support_is_null_and_no_fault()
    {
        await using var node = new MockNode(mock.Driver);
        string[] calls =
        [
            "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates",
            "nvmlDeviceGetEccMode", "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRetiredPages", "nvmlDeviceGetRemappedRows",
            "nvmlDeviceGetMigMode", "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetCurrentClocksThrottleReasons",
            "nvmlDeviceRegisterEvents",
        ];
        node.Break([.. calls.Select(call => new MockFault(call, Status: 3, Device: 2))]);
        var seen = await node.ProbeAsync();
        Assert.True(seen.IsWhole);
        var device = seen.Devices[2];
        Assert.Equal(
            (null, null, null, null, null), (device.PowerMilliwatts, device.PowerLimitMilliwatts, device.TemperatureCelsius,
                device.GpuUtilizationPercent, device.EccEnabled));
        Assert.Equal(
            (null, null, null, null, null), (device.UncorrectedEccErrors, device.RetiredPages, device.RowRemap, device.MigEnabled, device.Throttle));
        Assert.Null(device.Processes);
        Assert.Equal(34, seen.Devices[1].TemperatureCelsius);
    }

    [Fact]
    public async Task No_driver_is_an_answer()
    {
        await using var node = new MockNode(mock.Driver, with: options => options with
        {
            CudaLibrary = "/nowhere/libcuda.so.1",
            NvmlLibrary = "libnvidia-ml-that-nobody-has.so.1",
        });
        var seen = await node.ProbeAsync();
        Assert.Equal(DriverState.NoDriver, seen.Driver);
        Assert.Equal("NVML: there is no libnvidia-ml-that-nobody-has.so.1; CUDA: there is no /nowhere/libcuda.so.1", seen.Message);
        Assert.Empty(seen.Devices);
        Assert.False(seen.IsWhole);
    }

    [Fact]
    public async Task A_library_that_cannot_be_loaded_is_not_an_absent_one()
    {
        var file = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(file, "this is no library", TestContext.Current.CancellationToken);
            await using var node = new MockNode(mock.Driver, with: options => options with { CudaLibrary = file, NvmlLibrary = file });
            Assert.Equal(DriverState.Failed, (await node.ProbeAsync()).Driver);
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public async Task A_library_that_is_not_what_its_name_says_fails()
    {
        await using var node = new MockNode(mock.Driver, with: options => options with
        {
            CudaLibrary = mock.Driver.NvmlLibrary,
            NvmlLibrary = mock.Driver.CudaLibrary,
        });
        var seen = await node.ProbeAsync();
        Assert.Equal(DriverState.Failed, seen.Driver);
        Assert.Contains("'nvmlInit'", seen.Message, StringComparison.Ordinal);
        Assert.Contains("'cuDriverGetVersion'", seen.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task No_device_is_an_answer()
    {
        await using var node = new MockNode(mock.Driver);
        node.Change(gpus => gpus.Devices.Clear());
        var seen = await node.ProbeAsync();
        Assert.Equal((DriverState.NoDevice, 0), (seen.Driver, seen.Devices.Count));
    }

    [Theory]
    [InlineData("nvml*")]
    [InlineData("nvmlDeviceGetTemperature")]
    [InlineData("nvmlDeviceGetHandleByIndex")]
    public async Task One_lost_device_leaves_the_other_seven_healthy_and_comes_back(string call)
    {
        await using var node = new MockNode(mock.Driver);
        await node.ProbeAsync();
        node.Break(new MockFault(call, Status: 15, Device: 5));
        for (var again = 0; again < 2; again++)
        {
            var seen = await node.ProbeAsync();
            Assert.Equal(DriverState.Working, seen.Driver);
            Assert.Equal(8, seen.Devices.Count);
            Assert.Equal((HealthVerdict.Unhealthy, HealthReason.Lost), (seen.Devices[5].Health.Verdict, seen.Devices[5].Health.Reason));
            Assert.EndsWith(": NVML_ERROR_GPU_IS_LOST", seen.Devices[5].Health.Message, StringComparison.Ordinal);
            Assert.Equal(node.Gpus.Devices[5].Uuid, seen.Devices[5].Uuid!.Value.Value);
            Assert.Equal((132, "00000000:15:00.0"), (seen.Devices[5].Multiprocessors, seen.Devices[5].PciBusId));
            Assert.All(seen.Devices.Where(device => device.Index != 5), device => Assert.Equal(DeviceHealth.Healthy, device.Health));
        }

        node.Repair();
        Assert.True((await node.ProbeAsync()).IsWhole);
    }

    [Fact]
    public async Task A_device_that_was_lost_before_the_first_probe_has_no_identity()
    {
        await using var node = new MockNode(mock.Driver);
        node.Break(MockFault.Lost(0));
        var seen = await node.ProbeAsync();
        Assert.Equal((null, HealthReason.Lost), (seen.Devices[0].Uuid, seen.Devices[0].Health.Reason));
        Assert.Equal(7, seen.Devices.Count(device => device.Health == DeviceHealth.Healthy));
    }

    [Fact]
    public async Task A_device_that_is_not_listed_any_more_is_lost_until_it_is_listed_again()
    {
        await using var node = new MockNode(mock.Driver);
        await node.ProbeAsync();
        var gone = node.Gpus.Devices[7];
        node.Change(gpus => gpus.Devices.RemoveAt(7));
        var seen = await node.ProbeAsync();
        Assert.Equal(8, seen.Devices.Count);
        Assert.Equal((gone.Uuid, HealthReason.Lost), (seen.Devices[7].Uuid!.Value.Value, seen.Devices[7].Health.Reason));
        Assert.Equal(7, seen.Devices.Count(device => device.Health == DeviceHealth.Healthy));
        node.Change(gpus => gpus.Devices.Add(gone));
        Assert.True((await node.ProbeAsync()).IsWhole);
    }

    [Fact]
    public async Task A_device_with_another_UUID_in_the_same_slot_replaces_the_one_before()
    {
        await using var node = new MockNode(mock.Driver);
        await node.ProbeAsync();
        var before = node.Gpus.Devices[4].Uuid;
        node.Change(4, gpu => gpu with { Uuid = MockGpus.Uuid("GPU", "the spare") });
        for (var again = 0; again < 2; again++)
        {
            var seen = await node.ProbeAsync();
            Assert.Equal(8, seen.Devices.Count);
            Assert.Equal((MockGpus.Uuid("GPU", "the spare"), before), (seen.Devices[4].Uuid!.Value.Value, seen.Devices[4].Replaces!.Value.Value));
            // CUDA goes on seeing the old one in a process that knew it, which must not look like a fault.
            Assert.True(seen.IsWhole);
        }
    }

    [Fact]
    public async Task MIG_instances_are_listed_and_CUDA_is_not_expected_to_list_every_device()
    {
        await using var node = new MockNode(mock.Driver);
        var uuids = new[] { MockGpus.Uuid("MIG", "1"), MockGpus.Uuid("MIG", "2") };
        node.Change(1, gpu => gpu with
        {
            MigEnabled = true,
            Mig =
            [
                new MockMig(uuids[0], "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448),
                new MockMig(uuids[1], "NVIDIA H100 80GB HBM3 MIG 4g.40gb", 40448),
            ],
        });
        var seen = await node.ProbeAsync();
        Assert.True(seen.IsWhole, seen.Message);
        var device = seen.Devices[1];
        Assert.True(device.MigEnabled);
        Assert.Equal(
            [
                new MigInstance(0, new DeviceUuid(uuids[0]), "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448L << 20, 40448L << 20),
                new MigInstance(1, new DeviceUuid(uuids[1]), "NVIDIA H100 80GB HBM3 MIG 4g.40gb", 40448L << 20, 40448L << 20),
            ],
            device.MigInstances);
        Assert.Equal(node.Gpus.Devices[1].Uuid, device.Uuid!.Value.Value);
        Assert.Null(device.GpuUtilizationPercent);
        Assert.Equal(132, device.Multiprocessors);
    }

    [Fact]
    public async Task MIG_without_an_instance_is_no_fault()
    {
        await using var node = new MockNode(mock.Driver);
        node.Change(gpus => gpus.Devices.RemoveRange(1, 7));
        node.Change(0, gpu => gpu with { MigEnabled = true });
        var seen = await node.ProbeAsync();
        Assert.True(seen.IsWhole, seen.Message);
        Assert.Empty(seen.Devices[0].MigInstances);
    }

    [Theory]
    [InlineData("nvmlInit", 18, "NVML: nvmlInit: NVML_ERROR_LIB_RM_VERSION_MISMATCH; CUDA: 8 devices")]
    [InlineData("nvmlInit", 9, "NVML: nvmlInit: NVML_ERROR_DRIVER_NOT_LOADED; CUDA: 8 devices")]
    [InlineData("nvmlDeviceGetCount", 999, "NVML: nvmlDeviceGetCount: NVML_ERROR_UNKNOWN; CUDA: 8 devices")]
    public async Task A_node_whose_NVML_fails_is_a_zombie_and_its_devices_are_unknown(string call, int status, string message)
    {
        await using var node = new MockNode(mock.Driver);
        node.Break(new MockFault(call, status));
        var seen = await node.ProbeAsync();
        Assert.Equal((DriverState.Zombie, message), (seen.Driver, seen.Message));
        Assert.Equal(node.Gpus.Devices.Select(gpu => gpu.Uuid), seen.Devices.Select(device => device.Uuid!.Value.Value));
        Assert.All(seen.Devices, device => Assert.Equal(
            (HealthVerdict.Unknown, HealthReason.NvmlFailed), (device.Health.Verdict, device.Health.Reason)));
        node.Repair();
        Assert.True((await node.ProbeAsync()).IsWhole);
    }

    [Theory]
    [InlineData(802, "cuInit: CUDA_ERROR_SYSTEM_NOT_READY")]
    [InlineData(719, "cuInit: CUDA_ERROR_LAUNCH_FAILED")]
    [InlineData(12345, "cuInit: CUDA status 12345")]
    public async Task A_node_whose_CUDA_fails_is_a_zombie_and_its_devices_are_unhealthy(int status, string message)
    {
        await using var node = new MockNode(mock.Driver);
        Assert.True((await node.ProbeAsync()).IsWhole);
        node.Break(new MockFault("cuInit", status));
        var seen = await node.ProbeAsync();
        Assert.Equal((DriverState.Zombie, $"NVML: 8 devices; CUDA: {message}"), (seen.Driver, seen.Message));
        Assert.All(seen.Devices, device => Assert.Equal(new DeviceHealth(HealthVerdict.Unhealthy, HealthReason.CudaFailed, message), device.Health));
        node.Repair();
        Assert.True((await node.ProbeAsync()).IsWhole);
    }

    [Fact]
    public async Task A_node_with_one_of_the_two_libraries_is_a_zombie()
    {
        await using var withoutCuda = new MockNode(mock.Driver, with: options => options with { CudaLibrary = "/nowhere/libcuda.so.1" });
        var seen = await withoutCuda.ProbeAsync();
        Assert.Equal(DriverState.Zombie, seen.Driver);
        Assert.All(seen.Devices, device => Assert.Equal(HealthVerdict.Unknown, device.Health.Verdict));
        await using var withoutNvml = new MockNode(mock.Driver, with: options => options with { NvmlLibrary = "/nowhere/libnvidia-ml.so.1" });
        seen = await withoutNvml.ProbeAsync();
        Assert.Equal((DriverState.Zombie, 8), (seen.Driver, seen.Devices.Count));
    }

    [Fact]
    public async Task A_driver_that_fails_as_a_whole_leaves_known_devices_unknown()
    {
        await using var node = new MockNode(mock.Driver);
        await node.ProbeAsync();
        node.Break(new MockFault("nvmlInit", 9), new MockFault("nvmlDeviceGetCount", 9), new MockFault("cuInit", 100));
        var seen = await node.ProbeAsync();
        Assert.Equal((DriverState.Failed, "NVML: nvmlInit: NVML_ERROR_DRIVER_NOT_LOADED; CUDA: 0 devices"), (seen.Driver, seen.Message));
        Assert.Equal(8, seen.Devices.Count);
        Assert.All(seen.Devices, device => Assert.Equal(HealthVerdict.Unknown, device.Health.Verdict));
        node.Repair();
        Assert.True((await node.ProbeAsync()).IsWhole);
    }

    [Fact]
    public async Task Memory_that_fails_makes_a_device_unhealthy_and_what_was_repaired_does_not()
    {
        await using var node = new MockNode(mock.Driver);
        node.Change(0, gpu => gpu with { EccUncorrected = 2 });
        node.Change(1, gpu => gpu with { RemapFailed = true });
        node.Change(2, gpu => gpu with { EccCorrected = 1000, RemappedUncorrected = 3, RetiredDouble = 1 });
        var seen = await node.ProbeAsync();
        Assert.Equal(
            [
                (HealthVerdict.Unhealthy, HealthReason.UncorrectedEcc), (HealthVerdict.Unhealthy, HealthReason.RowRemapFailed),
                (HealthVerdict.Healthy, HealthReason.None),
            ],
            seen.Devices.Take(3).Select(device => (device.Health.Verdict, device.Health.Reason)));
        Assert.Equal(DriverState.Working, seen.Driver);
        node.Change(0, gpu => gpu with { EccUncorrected = 0 });
        Assert.Equal(DeviceHealth.Healthy, (await node.ProbeAsync()).Devices[0].Health);
    }

    [Fact]
    public async Task A_hardware_XID_error_passes_and_a_faulty_programs_does_not_count()
    {
        var time = new FakeTimeProvider(new DateTimeOffset(2026, 3, 1, 12, 0, 0, TimeSpan.Zero));
        await using var node = new MockNode(mock.Driver, time, options => options with { XidMemory = TimeSpan.FromMinutes(5) });
        await node.ProbeAsync();
        node.Change(2, gpu => gpu with { Xids = [13, 31] });
        node.Change(6, gpu => gpu with { Xids = [48] });
        time.Advance(TimeSpan.FromMinutes(1));
        var seen = await node.ProbeAsync();
        Assert.Equal([new XidError(13, time.GetUtcNow()), new XidError(31, time.GetUtcNow())], seen.Devices[2].XidErrors);
        Assert.Equal(DeviceHealth.Healthy, seen.Devices[2].Health);
        Assert.Equal(
            new DeviceHealth(HealthVerdict.Unhealthy, HealthReason.Xid, "XID 48 at 2026-03-01T12:01:00.0000000+00:00"), seen.Devices[6].Health);

        time.Advance(TimeSpan.FromMinutes(4));
        Assert.Equal(HealthReason.Xid, (await node.ProbeAsync()).Devices[6].Health.Reason);
        time.Advance(TimeSpan.FromMinutes(1));
        seen = await node.ProbeAsync();
        Assert.True(seen.IsWhole);
        Assert.Equal(48, Assert.Single(seen.Devices[6].XidErrors).Code);
    }

    [Theory]
    [InlineData(999, HealthVerdict.Unknown, "NVML_ERROR_UNKNOWN")]
    [InlineData(16, HealthVerdict.Unhealthy, "NVML_ERROR_RESET_REQUIRED")]
    public async Task A_call_that_fails_without_need_is_told_by_name(int status, HealthVerdict verdict, string name)
    {
        await using var node = new MockNode(mock.Driver);
        node.Break(new MockFault("nvmlDeviceGetPowerUsage", status, Device: 1));
        var seen = await node.ProbeAsync();
        Assert.Equal(new DeviceHealth(verdict, HealthReason.DriverError, $"nvmlDeviceGetPowerUsage: {name}"), seen.Devices[1].Health);
        node.Repair();
        Assert.True((await node.ProbeAsync()).IsWhole);
    }

    [Fact]
    public async Task Probes_at_the_same_time_all_get_an_answer()
    {
        await using var node = new MockNode(mock.Driver);
        Assert.All(await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => node.ProbeAsync())), seen => Assert.True(seen.IsWhole));
    }
}
