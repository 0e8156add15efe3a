namespace Tensormesh.MockDevicePlugin;

/// <summary>One line on standard output for each event, with the instant in UTC.</summary>
internal sealed class Journal(TimeProvider time)
{
    private readonly Lock _lock = new();

    public void Write(string line)
    {
        lock (_lock)
        {
            Console.Out.WriteLine($"{time.GetUtcNow():yyyy-MM-ddTHH:mm:ss.fffZ} {line}");
            Console.Out.Flush();
        }
    }
}
