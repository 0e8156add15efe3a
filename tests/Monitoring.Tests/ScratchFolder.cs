namespace Tensormesh.Monitoring.Tests;

internal sealed class ScratchFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("tensormesh-monitoring-").FullName;

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
