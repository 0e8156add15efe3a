using System.Net;
using System.Net.Sockets;

namespace Tensormesh.TestKit;

/// <summary>TCP ports that nobody listened on a moment ago, all different.</summary>
public static class FreePorts
{
    public static IReadOnlyList<int> Take(int count)
    {
        // All are held until the last is known, or the system would hand the same one out again.
        var listeners = Enumerable.Range(0, count).Select(_ => new TcpListener(IPAddress.Loopback, 0)).ToList();
        try
        {
            listeners.ForEach(listener => listener.Start());
            return [.. listeners.Select(listener => ((IPEndPoint)listener.LocalEndpoint).Port)];
        }
        finally
        {
            listeners.ForEach(listener => listener.Dispose());
        }
    }
}
