namespace Tensormesh.TestKit;

/// <summary>The two libraries of the mock NVIDIA driver (tests/mock-gpu), built with the system's compiler.</summary>
/// <param name="UuidsProgram">Prints the UUIDs that CUDA shows to whoever runs it, from whichever driver the loader finds.</param>
public sealed record MockDriver(string CudaLibrary, string NvmlLibrary, string UuidsProgram)
{
    /// <summary>Names the file of a <see cref="MockGpus"/> to a process that loads the libraries.</summary>
    public const string EnvironmentVariable = "TENSORMESH_MOCK_GPU";

    /// <summary>Builds what is out of date; installs the compiler where there is none.</summary>
    /// <param name="old">As an old driver exports it: no entry point has a version in its name, and MIG and row remapping are unknown.</param>
    public static async Task<MockDriver> BuildAsync(Action<string> say, CancellationToken cancellation, bool old = false)
    {
        var folder = Repository.Folder("artifacts", "mock-gpu");
        await Prerequisites.EnsureCompilerAsync(say, cancellation);
        // Test projects that run side by side would build the same files.
        await using var onlyOne = await StateRoot.LockAsync(folder + ".lock", waiting: null, cancellation);
        await Command.RunAsync("make", ["--silent", "-C", Repository.Folder("tests", "mock-gpu"), $"OUT={folder}"], cancellation);
        var libraries = old ? Path.Combine(folder, "old") : folder;
        return new MockDriver(
            Path.Combine(libraries, "libcuda.so.1"), Path.Combine(libraries, "libnvidia-ml.so.1"), Path.Combine(folder, "cuda-uuids"));
    }
}
