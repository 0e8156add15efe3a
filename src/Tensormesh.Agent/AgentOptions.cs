using Tensormesh.Devices;
using Tensormesh.Resources;

namespace Tensormesh.Agent;

/// <summary>Configuration, section <c>Tensormesh:Agent</c> (environment: <c>Tensormesh__Agent__NodeName</c> and so on).</summary>
internal sealed class AgentOptions
{
    public const string Section = "Tensormesh:Agent";

    /// <summary>The node that this process runs on; in a pod, from <c>spec.nodeName</c>.</summary>
    public string NodeName { get; set; } = "";
    /// <summary>A kubeconfig file; in a pod, its service account is used when this is absent.</summary>
    public string? Kubeconfig { get; set; }
    /// <summary>Where metrics and probes are served.</summary>
    public string MetricsUrl { get; set; } = "http://0.0.0.0:8081";
    /// <summary>The kubelet's PodResources socket.</summary>
    public string PodResourcesSocket { get; set; } = "/var/lib/kubelet/pod-resources/kubelet.sock";
    /// <summary>From one look at the GPUs to the next.</summary>
    public TimeSpan ProbeInterval { get; set; } = TimeSpan.FromSeconds(10);
    /// <summary>How long nothing is told when nothing changes.</summary>
    public TimeSpan HeartbeatInterval { get; set; } = TimeSpan.FromSeconds(60);
    /// <summary>Whether the node is labelled as GPU Feature Discovery does, where nothing else does.</summary>
    public bool LabelNode { get; set; } = true;

    /// <summary>The driver's libraries and how long to wait for them.</summary>
    public CudaDeviceProbeOptions Probe { get; set; } = new();

    /// <summary>Each thing that is wrong, with what to do; none when the agent can run.</summary>
    public IEnumerable<string> Problems()
    {
        if (NodeName.Length is 0 or > Formats.NodeNameMaxLength)
        {
            yield return $"{Section}:NodeName is not set: in a pod, set the environment variable Tensormesh__Agent__NodeName from the field spec.nodeName";
        }

        if (!Path.IsPathRooted(PodResourcesSocket))
        {
            yield return $"{Section}:PodResourcesSocket '{PodResourcesSocket}' is no absolute path";
        }

        if (!Uri.TryCreate(MetricsUrl, UriKind.Absolute, out var url) || url.Scheme != "http" || !System.Net.IPAddress.TryParse(url.Host, out _))
        {
            yield return $"{Section}:MetricsUrl '{MetricsUrl}' is not like http://0.0.0.0:8081: an address of this machine and a port";
        }

        if (ProbeInterval < TimeSpan.FromMilliseconds(100) || ProbeInterval > TimeSpan.FromMinutes(10))
        {
            yield return $"{Section}:ProbeInterval is {ProbeInterval:c}: use 00:00:00.1 to 00:10:00";
        }

        if (HeartbeatInterval < TimeSpan.FromSeconds(1) || HeartbeatInterval < ProbeInterval || HeartbeatInterval.TotalSeconds > Formats.MaxHeartbeatSeconds)
        {
            yield return $"{Section}:HeartbeatInterval is {HeartbeatInterval:c}: use at least 00:00:01 and ProbeInterval ({ProbeInterval:c}), and at most an hour";
        }
    }
}
