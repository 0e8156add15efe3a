namespace Tensormesh.Operator.Watching;

/// <summary>
/// Pauses that double up to a bound. Each is between half and one and a half of what is due, so that a server that comes back is not met by every
/// client at once.
/// </summary>
internal sealed class Backoff(TimeSpan first, TimeSpan longest, Random random)
{
    private int doublings;

    public TimeSpan Next()
    {
        var due = first * Math.Pow(2, doublings);
        if (due < longest) doublings++;
        return (due < longest ? due : longest) * (0.5 + random.NextDouble());
    }

    public void Reset() => doublings = 0;
}
