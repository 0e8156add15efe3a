namespace Tensormesh.TestKit;

/// <summary>
/// What a node has in place of NVIDIA's driver: a folder with the mock libraries and the GPUs that they show. The device plugin reads it
/// and mounts it into GPU containers, and the agent's pod mounts it too, so that all speak of the same GPUs and faults.
/// </summary>
public sealed class NodeDriver
{
    /// <summary>Where containers see the folder.</summary>
    public const string InContainer = "/usr/local/nvidia";

    /// <summary>Where containers see the file of the GPUs.</summary>
    public const string GpusFileInContainer = InContainer + "/gpus.json";

    private NodeDriver(string folder, MockGpus gpus) => (Folder, Gpus) = (folder, gpus);

    public string Folder { get; }
    public MockGpus Gpus { get; }

    internal static NodeDriver Install(string folder, MockDriver driver, MockGpus gpus)
    {
        var libraries = Directory.CreateDirectory(Path.Combine(folder, "lib64")).FullName;
        foreach (var library in (string[])[driver.CudaLibrary, driver.NvmlLibrary])
            File.Copy(library, Path.Combine(libraries, Path.GetFileName(library)));
        var installed = new NodeDriver(folder, gpus);
        installed.Change(_ => { });
        return installed;
    }

    /// <summary>Processes that have the driver loaded follow at their next call.</summary>
    public void Change(Action<MockGpus> change)
    {
        ArgumentNullException.ThrowIfNull(change);
        change(Gpus);
        Gpus.Save(Path.Combine(Folder, "gpus.json"));
    }
}
