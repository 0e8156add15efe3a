namespace Tensormesh.Integration.Tests;

/// <summary>Waits for a condition, never for a time.</summary>
internal static class Eventually
{
    public static readonly TimeSpan Limit = TimeSpan.FromSeconds(200);

    /// <summary>Reads until the condition holds and returns what was read; past the limit the test fails with the last reading.</summary>
    public static async Task<T> SeeAsync<T>(Func<Task<T>> read, Func<T, bool> condition, Func<T, string>? describe = null)
    {
        using var deadline = new CancellationTokenSource(Limit);
        while (true)
        {
            var seen = await read();
            if (condition(seen)) return seen;
            if (deadline.IsCancellationRequested) Assert.Fail($"not seen within {Limit.TotalSeconds:0} s; last: {describe?.Invoke(seen) ?? $"{seen}"}");
            await Task.Delay(TimeSpan.FromMilliseconds(50), TestContext.Current.CancellationToken);
        }
    }
}
