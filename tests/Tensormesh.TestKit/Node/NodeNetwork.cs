using System.Net;

namespace Tensormesh.TestKit;

/// <summary>
/// The addresses of one cluster, told from other clusters of this machine by one number: 10.199.N.1 is the
/// host's (on `lo`), 10.199.N.2 the real node's, 10.244.N.0/24 its pods'.
/// </summary>
internal sealed record NodeNetwork(byte Number)
{
    public IPAddress HostAddress => new([10, 199, Number, 1]);
    public IPAddress NodeAddress => new([10, 199, Number, 2]);
    public string PodRange => $"10.244.{Number}.0/24";
    public string HostInterface => $"tmesh{Number}";

    /// <summary>The first number whose addresses no interface of this machine has.</summary>
    public static NodeNetwork FindFree()
    {
        var taken = System.Net.NetworkInformation.NetworkInterface.GetAllNetworkInterfaces()
            .SelectMany(each => each.GetIPProperties().UnicastAddresses)
            .Select(each => each.Address)
            .ToHashSet();
        return Enumerable.Range(1, 254)
            .Select(number => new NodeNetwork((byte)number))
            .FirstOrDefault(network => !taken.Contains(network.HostAddress) && !Directory.Exists("/sys/class/net/" + network.HostInterface))
            ?? throw new InvalidOperationException("No free network 10.199.N.0/24 is left: 254 dev clusters on one machine.");
    }
}
