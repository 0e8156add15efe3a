namespace Tensormesh.MockDevicePlugin;

/// <summary>The command line. <see cref="Parse"/> throws <see cref="ArgumentException"/> with a sentence for the user.</summary>
internal sealed record PluginOptions(string PluginDir, string Resource, int Count, string Product, string Node, string? Driver, string? HealthFile)
{
    public const string Usage =
        "usage: mock-device-plugin [--plugin-dir /var/lib/kubelet/device-plugins] [--resource nvidia.com/gpu] [--count 8] "
        + "[--product NVIDIA-H100-80GB-HBM3] [--node gpu-a] [--driver FOLDER] [--health-file unhealthy.json]";

    private const int MaxCount = 256;

    public string KubeletSocket => Path.Combine(PluginDir, "kubelet.sock");

    /// <summary>One socket for each resource, named after it, as the kubelet's folder is flat.</summary>
    public string Endpoint => $"mock-{Resource.Replace('/', '-')}.sock";

    public string PluginSocket => Path.Combine(PluginDir, Endpoint);

    public static PluginOptions Parse(IReadOnlyList<string> arguments)
    {
        var options = new PluginOptions("/var/lib/kubelet/device-plugins", "nvidia.com/gpu", 8, "NVIDIA-H100-80GB-HBM3", "gpu-a", null, null);
        for (var i = 0; i < arguments.Count; i += 2)
        {
            var value = i + 1 < arguments.Count ? arguments[i + 1] : throw new ArgumentException($"{arguments[i]} needs a value.");
            options = arguments[i] switch
            {
                "--plugin-dir" => options with { PluginDir = value },
                "--resource" => options with { Resource = value },
                "--count" => options with { Count = ParseCount(value) },
                "--product" => options with { Product = value },
                "--node" => options with { Node = value },
                "--driver" => options with { Driver = Path.GetFullPath(value) },
                "--health-file" => options with { HealthFile = value },
                _ => throw new ArgumentException($"{arguments[i]} is not an option."),
            };
        }

        return options;
    }

    private static int ParseCount(string value) =>
        int.TryParse(value, out var count) && count is >= 0 and <= MaxCount
            ? count
            : throw new ArgumentException($"--count takes a number from 0 to {MaxCount}, not {value}.");
}
