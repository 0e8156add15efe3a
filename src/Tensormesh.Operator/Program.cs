Console.WriteLine("tensormesh-operator");
