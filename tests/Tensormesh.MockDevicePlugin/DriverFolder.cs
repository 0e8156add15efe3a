using System.Text.Json;
using Tensormesh.MockDevicePlugin.V1Beta1;

namespace Tensormesh.MockDevicePlugin;

/// <summary>
/// The mock driver of a node: <c>lib64</c> with its libraries, and <c>gpus.json</c> with the devices that they show. A container gets
/// the folder and not the files, because a JSON that is replaced by a rename is another file.
/// </summary>
internal static class DriverFolder
{
    /// <summary>Where images of NVIDIA's look for a driver that is mounted.</summary>
    public const string InContainer = "/usr/local/nvidia";

    private const string GpusFile = "gpus.json";

    /// <summary>Read once, as a device plugin does: GPUs that come later are there after its next start.</summary>
    /// <exception cref="ArgumentException">The file names no devices.</exception>
    public static IReadOnlyList<string> ReadUuids(string folder)
    {
        var file = Path.Combine(folder, GpusFile);
        try
        {
            using var gpus = JsonDocument.Parse(File.ReadAllBytes(file));
            return [.. gpus.RootElement.GetProperty("devices").EnumerateArray().Select(device => device.GetProperty("uuid").GetString()!)];
        }
        catch (Exception unreadable) when (unreadable is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new ArgumentException($"{file} does not list devices with their UUIDs: {unreadable.Message}", unreadable);
        }
    }

    /// <summary>
    /// NVIDIA's container runtime mounts the driver and lets the container reach its own devices alone. Nothing here could forbid the
    /// others, so the libraries are told which to show.
    /// </summary>
    /// <param name="devices">UUIDs with commas between.</param>
    public static void MountInto(ContainerAllocateResponse answer, string folder, string devices)
    {
        answer.Mounts.Add(new Mount { HostPath = folder, ContainerPath = InContainer, ReadOnly = true });
        answer.Envs["CUDA_VISIBLE_DEVICES"] = devices;
        answer.Envs["TENSORMESH_MOCK_GPU"] = $"{InContainer}/{GpusFile}";
    }
}
