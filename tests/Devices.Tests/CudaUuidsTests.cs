using System.Diagnostics;
using Tensormesh.TestKit;

namespace Tensormesh.Devices.Tests;

/// <summary>The program that tells inside a container which GPUs CUDA shows, and how they are chosen.</summary>
public sealed class CudaUuidsTests(MockDriverFixture built) : IDisposable
{
    private static readonly MockGpus Gpus = new()
    {
        Devices =
        [
            new MockGpu { Uuid = "GPU-5a4fd7b2-6ff7-4b8e-9d5f-0d1b1f1f2c3a", Pci = "0000:10:00.0" },
            new MockGpu { Uuid = "GPU-5a4fd7ff-6ff7-4b8e-9d5f-0d1b1f1f2c3a", Pci = "0000:11:00.0" },
            new MockGpu { Uuid = "GPU-00000001-6ff7-4b8e-9d5f-0d1b1f1f2c3a", Pci = "0000:12:00.0" },
        ],
    };

    private readonly string file = Path.GetTempFileName();

    [Theory]
    [InlineData(null, "0 1 2")]
    [InlineData("2,0", "2 0")]
    [InlineData("GPU-00000001-6ff7-4b8e-9d5f-0d1b1f1f2c3a,GPU-5a4fd7b2-6ff7-4b8e-9d5f-0d1b1f1f2c3a", "2 0")]
    [InlineData("GPU-5a4fd7f", "1")]
    [InlineData("GPU-00000001,GPU-5a4fd7,0", "2")]
    public void Shows_the_devices_that_are_chosen_by_index_or_by_as_much_of_a_UUID_as_is_unique(string? chosen, string shown)
    {
        var (exitCode, output) = Run(chosen);
        Assert.Equal(0, exitCode);
        Assert.Equal(shown.Split(' ').Select(index => Gpus.Devices[int.Parse(index)].Uuid), output.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    [Theory]
    [InlineData("")]
    [InlineData("GPU-")]
    [InlineData("GPU-ffff")]
    [InlineData("3")]
    public void Without_a_device_it_fails_by_the_name_that_CUDA_has_for_it(string chosen) =>
        Assert.Equal((1, "cuda-uuids: cuInit failed: CUDA_ERROR_NO_DEVICE (100)\n"), Run(chosen));

    public void Dispose() => File.Delete(file);

    private (int ExitCode, string Output) Run(string? chosen)
    {
        Gpus.Save(file);
        var start = new ProcessStartInfo(built.Driver.UuidsProgram) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["LD_LIBRARY_PATH"] = Path.GetDirectoryName(built.Driver.CudaLibrary);
        start.Environment[MockDriver.EnvironmentVariable] = file;
        start.Environment["CUDA_VISIBLE_DEVICES"] = chosen;
        using var program = Process.Start(start)!;
        var output = program.StandardOutput.ReadToEnd() + program.StandardError.ReadToEnd();
        program.WaitForExit();
        return (program.ExitCode, output);
    }
}
