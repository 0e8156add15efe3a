using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>The operator that leads now, and what becomes of it.</summary>
internal sealed class Leadership(Stage stage) : IAsyncDisposable
{
    private OperatorProcess? current;

    public OperatorProcess Current => current ?? throw new InvalidOperationException("no operator was started");

    /// <summary>Another process in the place of the present one, which is gone with all that it only remembered.</summary>
    public async Task ReplaceAsync()
    {
        if (current is not null) await current.DisposeAsync();
        current = await OperatorProcess.StartAsync(stage, "next");
    }

    /// <summary>The present one ends, and the other goes on.</summary>
    public async Task HandOverAsync(OperatorProcess other)
    {
        await Current.DisposeAsync();
        current = other;
    }

    /// <summary>What the operator does, and a new one in its place if it died in it or was overtaken.</summary>
    public async Task SurviveAsync(Func<OperatorProcess, Task> act)
    {
        try
        {
            await act(Current);
        }
        catch (DiedException)
        {
            stage.Tell("  it died");
            stage.Count("died");
            stage.Mortality.Spare();
            await ReplaceAsync();
            // Each of its effects was looked at when it was done: between the last and its death it wrote nothing.
            await stage.Auditor.AfterAsync(new Effect.Nothing("the operator was dead"), stage.Cancellation);
            return;
        }

        stage.Mortality.Spare();
        if (Current.IsOver) await ReplaceAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (current is not null) await current.DisposeAsync();
    }
}
