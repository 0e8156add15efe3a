namespace Tensormesh.TestKit;

/// <summary>Placeholder surface; see the issue.</summary>
public sealed class DevCluster;
